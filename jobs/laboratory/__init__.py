"""The scaling laboratory of jobs/scale.py and jobs/report.py: points, the jobs that measure them, and what they say."""
