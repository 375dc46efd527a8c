"""The scaling laboratory: jobs of many sizes are measured, and what was measured becomes a report."""
