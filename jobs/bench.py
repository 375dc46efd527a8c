#!/usr/bin/env python3
"""Benchmark the training step against other implementations: lstm_dist/programs/bench.py."""

from lstm_dist.cluster.isolation import isolate
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        from lstm_dist.programs.bench import main

        main()
