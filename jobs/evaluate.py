#!/usr/bin/env python3
"""Measure how well a model predicts a text: lstm_dist/programs/evaluate.py."""

from lstm_dist.cluster.bootstrap import prepare_process
from lstm_dist.cluster.isolation import isolate
from lstm_dist.cluster.start_signals import EndOnSignal
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        isolate()
        with EndOnSignal():
            prepare_process()  # before the next line loads MXNet
            from lstm_dist.programs.evaluate import main
        main()
