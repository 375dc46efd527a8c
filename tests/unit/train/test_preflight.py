"""Checks before the first step: equal configurations, one GPU per worker, a shared run directory."""

from pathlib import Path
from types import SimpleNamespace
from typing import List

import mxnet as mx
import pytest

from lstm_dist.cluster import devices
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.preflight import inspect_run, require_agreement
from lstm_dist.train.setup import Job, set_up
from tests.support.fake_world import FakeWorld, SilentStartup


@pytest.mark.parametrize(("ctx", "compared"), [(mx.cpu(), True), (mx.gpu(0), False)], ids=["cpu", "gpu"])
def test_thread_counts_are_compared_only_on_cpus(ctx: mx.Context, compared: bool):
    world = FakeWorld()
    text = SimpleNamespace(digest="digest", vocabulary=Vocabulary("天地人和"))
    require_agreement(Job(parse_config([]), text, None, SimpleNamespace(ctx=ctx), None, []), world, {"code": "digest"})
    _, told = world.gathered["start"]
    assert ("OMP_NUM_THREADS" in told) == ("OPENBLAS_CORETYPE" in told) == compared
    assert {"corpus", "vocabulary", "code", "seed"} <= set(told)


def test_a_worker_takes_the_gpu_of_its_local_rank(song_file: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def choose(*given: object) -> mx.Context:
        asked.append(given)
        return mx.cpu()

    monkeypatch.setattr(devices, "choose", choose)
    sizes = ["--hidden-size=8", "--global-batch-size=8", "--seq-len=5", "--max-chars=600", f"--corpus={song_file}"]
    set_up(parse_config(sizes), FakeWorld(5, 8, local_rank=1), SilentStartup())
    assert asked == [("auto", 1)]


def gpu(host: str, which: str) -> List[str]:
    return [host, which]


def test_ranks_that_share_a_gpu_are_reported_and_do_without_nccl(tmp_path: Path):
    job = Job(parse_config([]), None, None, SimpleNamespace(ctx=mx.cpu()), None, [])
    apart = [gpu("n1", "A100 at 1"), gpu("n1", "A100 at 2"), gpu("n2", "A100 at 1"), gpu("n2", ""), gpu("n2", "")]
    shared = [gpu("n1", "A100 at 1"), gpu("n1", "A100 at 2"), gpu("n1", "A100 at 1")]
    for has_nccl in (True, False):
        world = FakeWorld(has_nccl=has_nccl, answers={"gpus": apart})
        assert inspect_run(job, tmp_path, world) == []
        assert world.has_nccl == has_nccl
    said = "ranks 0 and 2 on n1 compute on one GPU, A100 at 1"
    world = FakeWorld(answers={"gpus": shared})
    assert inspect_run(job, tmp_path, world) == [f"warning: {said}: each has a share of its speed"]
    world = FakeWorld(has_nccl=True, answers={"gpus": shared})
    (warning,) = inspect_run(job, tmp_path, world)
    assert warning.startswith(f"warning: {said}: each has a share of its speed, and the gradients of all ranks pass")
    assert not world.has_nccl


@pytest.mark.parametrize("slurm", [True, False])
def test_run_dir_that_a_host_cannot_see_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: bool):
    job = Job(parse_config([]), None, None, SimpleNamespace(ctx=mx.cpu()), None, [])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    run_dir = tmp_path / "run"

    every_host = FakeWorld(is_one_host=False)
    assert inspect_run(job, run_dir, every_host) == []
    assert not run_dir.exists()  # the folder made for the check was removed
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    assert inspect_run(job, tmp_path / "link", every_host) == []
    assert list((tmp_path / "link").iterdir()) == []  # the existing folder is kept
    said = f"--run-dir {run_dir}: n2, n3 cannot see it: give a folder on a file system that all nodes share"
    some_hosts = FakeWorld(is_one_host=False, answers={"seen": ["", "n3", "n2", ""]})
    if slurm:
        with pytest.raises(CollectiveError, match=said):
            inspect_run(job, run_dir, some_hosts)
    else:
        (warning,) = inspect_run(job, run_dir, some_hosts)
        assert warning.startswith(f"warning: {said}; ")
    assert not run_dir.exists()
