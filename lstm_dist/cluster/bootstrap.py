"""What a process that computes does before it loads MXNet, whose threads are started then."""

from lstm_dist.cluster.cpu_affinity import Affinity, pin_to_cores
from lstm_dist.cluster.cuda_libs import require_driver


def prepare_process() -> Affinity:
    """Pin the process to its cores, and see that the MXNet of the environment can be loaded here.

    Raises:
        UserError: naming the variable or the missing driver.
    """
    affinity = pin_to_cores()
    require_driver()
    return affinity
