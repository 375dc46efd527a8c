#!/usr/bin/env python3
"""Write the report of a scaling experiment: lstm_dist/programs/report.py."""

from lstm_dist.cluster.isolation import isolate
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        from lstm_dist.programs.report import main

        main()
