"""Start of a worker that times allreduces (allreduce_timing.py) and that a launcher starts.

python -m lstm_dist.scaling.allreduce_worker PATH FILE SECONDS MIB

PATH is horovod-mpi, horovod-gloo or mpi; SECONDS is the measuring time per size, MIB the largest size.
"""

import sys

from lstm_dist.cluster.cpu_affinity import pin_to_cores
from lstm_dist.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        pin_to_cores()  # before the next line loads NumPy and MXNet, which start their threads
        from lstm_dist.scaling.allreduce_timing import main

        main(*sys.argv[1:])
