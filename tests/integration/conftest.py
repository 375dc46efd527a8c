"""What only the programs' tests rely on."""

import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT


@pytest.fixture
def real() -> Path:
    """The .venv that launch/setup.sh made, and that these tests run in."""
    venv = ROOT / ".venv"
    if Path(sys.prefix).resolve() != venv.resolve() or not (venv / ".setup/ready.stamp").exists():
        pytest.skip("these tests do not run in the .venv that launch/setup.sh made")
    return venv
