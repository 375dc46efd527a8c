"""The LSTM of the D2L chapter "LSTM from scratch", hand-written on MXNet and trained by Horovod workers."""

from lstm_dist.cluster import cuda_libs

__version__ = "0.1.0"

cuda_libs.load()  # before anything imports MXNet
