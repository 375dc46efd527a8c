"""A computing process loads MXNet after it is pinned, without the parts that training does not use."""

import subprocess
import sys

import pytest

from tests.support.programs import ROOT

CODE = """
import sys
from lstm_dist.cluster.bootstrap import prepare_process
prepare_process()
assert "mxnet" in sys.modules
found = {"scipy", "setuptools"} & set(sys.modules)
assert not found, found
import scipy.stats  # can still be imported afterwards
import mxnet
assert mxnet.nd.sparse.csr_matrix(([1.0], [0], [0, 1]), shape=(1, 2)).asnumpy().tolist() == [[1.0, 0.0]]
"""


@pytest.mark.slow
def test_mxnet_is_loaded_without_scipy_and_setuptools():
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, check=True, timeout=120)
