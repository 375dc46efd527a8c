"""Set one thread per worker, and provide the fixtures of all tests: a small corpus and a small trained run."""

import os
import signal
from pathlib import Path
from typing import Iterator

import pytest

from lstm_dist.cluster.start_signals import SIGNALS
from tests.support.programs import TRAIN, run
from tests.support.trained import TRAINED_FLAGS, Trained
from tests.support.verses import verses

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts a background command with SIGINT ignored, and nohup with SIGHUP ignored, which children inherit. Tests
# send these signals.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Restore the handlers of signals: a training that ends by SystemExit leaves the signals ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def song_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a text of about 3,000 characters in UTF-8, with LF line ends."""
    path = tmp_path_factory.mktemp("corpus") / "song.txt"
    path.write_bytes(("\n".join(verses()) + "\n").encode())
    return path


@pytest.fixture(scope="session")
def trained(song_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a run of three epochs with samples after the second and the third; tests must not change its directory."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    result = run([*TRAIN, f"--corpus={song_file}", f"--run-dir={run_dir}", *TRAINED_FLAGS])
    assert result.returncode == 0, result.stderr
    return Trained(run_dir, result.stdout, result.stderr)
