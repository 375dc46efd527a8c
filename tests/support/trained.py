"""The small trained run that many tests share."""

from pathlib import Path
from typing import NamedTuple

from tests.support.programs import TINY

TRAINED_FLAGS = (*TINY, "--epochs=3", "--log-every=2", "--sample-length=30", "--learning-rate=0.5")


class Trained(NamedTuple):
    run_dir: Path
    stdout: str
    stderr: str
