"""The LSTM of the D2L chapter "LSTM from scratch", hand-written on MXNet and trained by Horovod workers."""

__version__ = "0.1.0"
