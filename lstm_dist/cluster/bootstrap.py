"""Setup of a computing process: its cores first and MXNet last, because loading MXNet starts threads."""

import os
import sys
from typing import Optional

from lstm_dist.cluster.cpu_affinity import Affinity, ReportLine, pin_to_cores
from lstm_dist.cluster.cuda_libs import require_driver
from lstm_dist.cluster.library_variables import require_valid
from lstm_dist.cluster.openblas import named_kernel


def prepare_process(report: Optional[ReportLine] = None) -> Affinity:
    """Pin the process to its cores, check that the environment's MXNet can be loaded on this machine, and load it.

    Args:
        report: see pin_to_cores.

    Raises:
        UserError: naming the variable or the missing driver.
    """
    require_valid(os.environ)
    affinity = pin_to_cores(report)
    require_driver()
    _load_mxnet()
    return affinity


def _load_mxnet() -> None:
    """Import MXNet without scipy and setuptools, which take a third of the time of the import.

    MXNet imports scipy for quantization and sparse conversions, and distutils, for which setuptools has a substitute
    that loads most of setuptools. None of them is used here.
    """
    substitute = sys.modules.get("_distutils_hack")
    if substitute is not None:
        substitute.remove_shim()
    sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]  # makes `import scipy` fail, which MXNet handles
    import numpy  # noqa: F401 - see named_kernel

    with named_kernel():
        import mxnet  # noqa: F401

    if sys.modules["scipy"] is None:
        del sys.modules["scipy"]
