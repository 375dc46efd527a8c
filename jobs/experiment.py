#!/usr/bin/env python3
"""Run the chapter's exercises as experiments: lstm_dist/programs/experiment.py."""

import sys

from lstm_dist.cluster.isolation import isolate
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        from lstm_dist.programs.experiment import main

        sys.exit(main(sys.argv[1:]))
