#!/usr/bin/env python3
"""Run a training job under horovodrun, for launch/local.sh and launch/cluster.sh: lstm_dist/programs/supervise.py."""

import sys

from lstm_dist.cluster.isolation import isolate
from lstm_dist.cluster.process_tree import continue_in_child
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        continue_in_child()
        from lstm_dist.programs.supervise import main

        sys.exit(main())
