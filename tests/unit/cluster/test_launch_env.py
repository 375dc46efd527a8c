import subprocess
import sys
import time
from typing import Dict

import pytest

from lstm_dist.cluster.launch_env import BEGAN, began

PROGRAM = "import time\ntime.sleep(0.3)\nfrom lstm_dist.cluster.launch_env import began\nprint(began())"


def test_attempt_began_when_its_process_was_started():
    """The start of Python and its imports belong to the attempt."""
    before = time.time()
    printed = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, check=True).stdout
    assert before - 0.02 <= float(printed) <= time.time() - 0.3  # the kernel counts in ticks of 10 ms


@pytest.mark.parametrize("seconds", [2.0, 3000.0])
def test_attempt_began_when_its_launcher_says(seconds: float):
    said = began({}) - seconds
    assert began({BEGAN: str(said)}) == said


@pytest.mark.parametrize("environ", [{BEGAN: word} for word in ("", "x", "nan", "-inf", "0", str(time.time() + 60))])
def test_variable_of_an_earlier_launcher_is_ignored(environ: Dict[str, str]):
    assert began(environ) == pytest.approx(began({}), abs=0.05)
