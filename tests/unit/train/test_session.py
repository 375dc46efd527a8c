"""What the watchdog of a training run reports of a worker that does not answer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import mxnet as mx
import pytest

from lstm_dist.cluster import devices
from lstm_dist.train.config import RunConfig
from lstm_dist.train.session import failures_recorded
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
