"""Fixtures of the tests of whole programs."""

import sys
from pathlib import Path

import pytest

from tests.support.fake_machine import Machine
from tests.support.programs import ROOT


@pytest.fixture
def real() -> Path:
    """Return the .venv that launch/setup.sh made; skip the test if the tests run in another environment."""
    venv = ROOT / ".venv"
    if Path(sys.prefix).resolve() != venv.resolve() or not (venv / ".setup/ready.stamp").exists():
        pytest.skip("these tests do not run in the .venv that launch/setup.sh made")
    return venv


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with the set-up scripts and a fake Python 3.11, and without an environment."""
    machine = Machine(tmp_path)
    machine.python("python3.11", "3.11.4")
    return machine
