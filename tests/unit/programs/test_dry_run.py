"""A dry run: it shows what a job would do, writes nothing, and ends with the errors of a real start."""

import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from lstm_dist.cluster.cpu_affinity import Affinity
from lstm_dist.programs import train
from tests.support.fake_world import SilentStartup
from tests.support.programs import TINY
from tests.support.trained import Trained


class Printed(SilentStartup):
    """A startup that prints what it reports."""

    def report(self, line: str) -> None:
        print(line)


def start(*flags: str) -> int:
    """Train in this process, and return the exit status."""
    umask, startup = os.umask(0o077), Printed()
    try:
        train.main(startup, Affinity(1, frozenset({0})), [*TINY, *flags])  # type: ignore[arg-type]
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        os.umask(umask)
    return 0


def snapshot(folder: Path) -> Dict[str, Tuple[int, bytes]]:
    """Return time and content of all files and folders."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.mark.parametrize("flags", [[], ["--run-dir=run"], ["--run-dir=run", "--auto-resume"]])
def test_new_run_writes_nothing(folder: Path, song_file: Path, capfd: pytest.CaptureFixture, flags: List[str]):
    before = snapshot(folder)
    assert start("--dry-run", f"--corpus={song_file}", "--valid-fraction=0.2", *flags) == 0
    assert snapshot(folder) == before
    said, errors = capfd.readouterr()
    rows = {line.split("  ")[1]: line.split("  ", 2)[2].strip() for line in said.splitlines()[1:]}
    assert errors == ""
    assert rows["text"].startswith("first 600 of 3,65")
    assert rows["streams"] == "4 consecutive, 5 characters of each a step"
    assert rows["steps"] == "23 an epoch, 46 in 2 epochs"  # 480 of 600 characters in 4 streams of 5 each
    assert rows["validation"] == "120 characters"
    assert rows["output"] == ("run" if flags else "a new folder in runs/") + "; nothing is written now"


def test_resumed_run_is_left_unchanged(folder: Path, trained: Trained, song_file: Path, capfd: pytest.CaptureFixture):
    run_dir = Path(shutil.copytree(trained.run_dir, folder / "run"))
    (run_dir / "lock").unlink()
    damaged = run_dir / "checkpoints" / "step-000000099.safetensors"
    damaged.write_bytes(b"damaged")
    before = snapshot(folder)
    flags = [f"--corpus={song_file}", "--run-dir=run", "--learning-rate=0.5", "--epochs=5"]
    for how in ("--resume", "--auto-resume"):
        assert start("--dry-run", how, *flags) == 0
        assert snapshot(folder) == before
        said, _ = capfd.readouterr()
        assert "  29 an epoch, 145 in 5 epochs, 87 of them are done\n" in said
        assert "  run, continued after step 87; nothing is written now\n" in said
        assert "step-000000099.safetensors: is not an intact .safetensors file" in said
        assert "resumed after step 87, in epoch 4" in said


def existing(folder: Path) -> Any:
    (folder / "run").mkdir()
    (folder / "run" / "log.txt").touch()


@pytest.mark.parametrize(
    ("flags", "prepare", "words"),
    [
        (["--corpus=missing.txt"], None, "--corpus missing.txt"),
        (["--run-dir=run"], existing, "already holds a run"),
        (["--run-dir=file/run"], lambda folder: (folder / "file").touch(), "--run-dir file/run: cannot be written"),
        (["--run-dir=" + "x" * 300], None, "at most 255 bytes"),
        (["--resume", "--run-dir=none"], None, "has no run to resume"),
        (["--seq-len=500"], None, "too short"),
        (["--learning-rate=0"], None, "--learning-rate 0"),
        (["--prefix=Ω"], None, "--prefix"),
        (["--hidden-size=16384", "--layers=16"], None, "GiB of memory"),
        (["--recurrence=loop"], None, "--recurrence loop"),
    ],
)
def test_errors_are_those_of_a_real_start(
    folder: Path, song_file: Path, capfd: pytest.CaptureFixture, flags: List[str], prepare: Any, words: str
):
    if prepare:
        prepare(folder)
    ends = []
    for dry in (["--dry-run"], []):
        before = snapshot(folder)
        status = start(*dry, *([] if "--corpus" in flags[0] else [f"--corpus={song_file}"]), *flags)
        if dry:
            assert snapshot(folder) == before
        said, errors = capfd.readouterr()
        ends.append((status, said, errors))
    assert ends[0] == ends[1]
    assert ends[0][0] not in (0, 70)
    assert words in ends[0][2]
    assert ends[0][2].count("\n") == 1
