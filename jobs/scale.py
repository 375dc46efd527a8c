#!/usr/bin/env python3
"""Measure how training scales: lstm_dist/programs/scale.py."""

import sys

from lstm_dist.cluster.isolation import isolate
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        from lstm_dist.programs.scale import main

        sys.exit(main(sys.argv[1:]))
