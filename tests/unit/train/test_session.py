"""What the watchdog of a training run reports of a worker that does not answer, and whose energy a worker reads."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import mxnet as mx
import pytest

from lstm_dist.cluster import devices, energy
from lstm_dist.train.config import RunConfig
from lstm_dist.train.session import failures_recorded, open_meter
from tests.support.fake_world import FakeWorld
from tests.support.gpus import A100

HOST, DEVICE = mx.cpu(), mx.cpu(1)


@pytest.mark.parametrize(
    ("ctx", "recurrence", "is_advised"),
    [(DEVICE, "persistent", True), (DEVICE, "loop", False), (DEVICE, "auto", False), (HOST, "persistent", False)],
)
def test_loop_is_advised_if_persistent_kernels_do_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctx: mx.Context, recurrence: Any, is_advised: bool
) -> None:
    monkeypatch.setattr(devices, "gpu_of", lambda ctx: A100 if ctx == DEVICE else None)
    advice: List[str] = []
    watchdog: Any = SimpleNamespace(step=0, report_to=lambda _, given: advice.append(given))
    job = SimpleNamespace(model=SimpleNamespace(ctx=ctx), settings=RunConfig(recurrence=recurrence))
    session: Any = SimpleNamespace(run_dir=tmp_path, world=FakeWorld(rank=1, size=2), job=job)
    with failures_recorded(session, watchdog):
        pass
    assert ["--recurrence loop" in text for text in advice] == [is_advised]


def test_energy_is_read_once_per_host_and_once_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [["one", "41"], ["one", "42"], ["two", "41"], ["two", "41"]]  # the last two workers share a GPU
    read: List[str] = []

    def source(name: str) -> energy.Source:
        read.append(name)
        return energy.unknown(name)

    monkeypatch.setattr(energy, "packages", lambda: source("packages"))
    monkeypatch.setattr(energy, "gpu", source)
    for rank, (host, bus) in enumerate(places):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        monkeypatch.setattr(devices, "gpu_of", lambda _, bus=bus: replace(A100, bus=bus))
        read.append(f"rank {rank}")
        open_meter(DEVICE, FakeWorld(rank, len(places), answers={"places": places}))
    assert read == ["rank 0", "packages", "41", "rank 1", "42", "rank 2", "packages", "41", "rank 3"]


def test_worker_on_a_cpu_reads_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "packages", lambda: energy.unknown("packages"))
    assert open_meter(HOST, FakeWorld()).describe() == ["packages"]
