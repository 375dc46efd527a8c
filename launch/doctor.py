#!/usr/bin/env python3
"""Report what would break a run in this environment: lstm_dist/programs/doctor.py."""

import sys

from lstm_dist.cluster.isolation import isolate
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        from lstm_dist.programs.doctor import main

        sys.exit(main())
