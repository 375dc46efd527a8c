"""Contestants for the fastest training step, and the measuring of them; started by jobs/bench.py."""
