#!/usr/bin/env python3
"""Encode a text of any size as tokens, by any number of ranks: lstm_dist/programs/prepare.py."""

from lstm_dist.cluster.isolation import isolate
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        from lstm_dist.programs.prepare import main

        main()
