#!/usr/bin/env python3
"""Train the hand-written LSTM with as many workers as the launcher starts: lstm_dist/programs/train.py."""

import os

from lstm_dist.cluster.bootstrap import prepare_process
from lstm_dist.cluster.isolation import isolate
from lstm_dist.cluster.start_signals import EndOnSignal
from lstm_dist.cluster.startup import Startup
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        startup = Startup.begin(os.environ)
        with EndOnSignal():
            affinity = prepare_process(startup.report)  # before the next line loads MXNet
            from lstm_dist.programs.train import main
        main(startup, affinity)
