"""Setup of a computing process before it loads MXNet, because loading starts MXNet's threads."""

from typing import Optional

from lstm_dist.cluster.cpu_affinity import Affinity, ReportLine, pin_to_cores
from lstm_dist.cluster.cuda_libs import require_driver


def prepare_process(report: Optional[ReportLine] = None) -> Affinity:
    """Pin the process to its cores and check that the environment's MXNet can be loaded on this machine.

    Args:
        report: see pin_to_cores.

    Raises:
        UserError: naming the variable or the missing driver.
    """
    affinity = pin_to_cores(report)
    require_driver()
    return affinity
