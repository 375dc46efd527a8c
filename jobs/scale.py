#!/usr/bin/env python3
"""Measure how training scales: lstm_dist/programs/scale.py."""

import sys

from lstm_dist.errors import one_line_errors
from lstm_dist.programs.scale import main

if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main(sys.argv[1:]))
