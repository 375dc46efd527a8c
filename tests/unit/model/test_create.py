"""The choice of a model by its device."""

from typing import Any, Tuple

import mxnet as mx
import pytest

from lstm_dist.cluster import devices
from lstm_dist.cluster.devices import Gpu
from lstm_dist.cuda import arrays
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model import create
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.create import create_model
from lstm_dist.model.cuda_lstm import CudaLSTM
from tests.support.host_kernels import HostModule

pytestmark = pytest.mark.kernels

DEVICE = mx.cpu(1)


def gpu(processors: int) -> Gpu:
    return Gpu(0, "Tesla", (7, 0), "0", processors, 11080)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> "list[Tuple[str, ...]]":
    """Let the second CPU device be a GPU with 40 multiprocessors; return the kernels of each model."""
    seen = []

    def compile_for_host(source: Any, ctx: mx.Context) -> HostModule:
        seen.append(tuple(source.kernels))
        return HostModule(source, ctx)

    monkeypatch.setattr(devices, "gpu_of", lambda ctx: gpu(40) if ctx == DEVICE else None)
    monkeypatch.setattr(create, "RtcModule", compile_for_host)
    monkeypatch.setattr(arrays, "kernels_for", lambda _: None)
    return seen


def test_model_for_a_cpu_is_a_graph(compiled: "list[Tuple[str, ...]]"):
    assert isinstance(create_model(7, 5, mx.cpu(), 2), CharLSTM)
    assert compiled == []


@pytest.mark.parametrize(("recurrence", "kernel"), [("auto", "cell_forward"), ("loop", "cell_forward")])
def test_model_for_a_gpu_computes_its_steps_in_a_loop(recurrence: str, kernel: str, compiled: "list[Tuple[str, ...]]"):
    model = create_model(7, 5, DEVICE, 2, recurrence)
    assert isinstance(model, CudaLSTM)
    assert (model.layers, model.ctx, model.arithmetic) == (2, DEVICE, "Tesla with the loop recurrence")
    assert kernel in compiled[0]
    assert "persistent_forward" not in compiled[0]


def test_persistent_kernels_are_used_where_they_fit(compiled: "list[Tuple[str, ...]]"):
    assert create_model(7, 320, DEVICE, 1, "persistent").arithmetic == "Tesla with the persistent recurrence"
    assert "persistent_forward" in compiled[0]
    assert "cell_forward" not in compiled[0]


@pytest.mark.parametrize(
    ("hidden_size", "processors", "advice"),
    [
        (100, 40, "use a multiple of 32 up to 320, or --recurrence loop"),
        (352, 40, "use a multiple of 32 up to 320, or --recurrence loop"),
        (1056, 200, "use a multiple of 32 up to 1024, or --recurrence loop"),
        (32, 3, "use --recurrence loop"),
    ],
)
def test_persistent_kernels_are_refused_where_they_do_not_fit(
    hidden_size: int, processors: int, advice: str, compiled: "list[Tuple[str, ...]]", monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(devices, "gpu_of", lambda _: gpu(processors))
    with pytest.raises(UserError) as refused:
        create_model(7, hidden_size, DEVICE, 1, "persistent")
    assert refused.value.status == ExitStatus.BAD_CONFIG
    assert str(refused.value) == (
        f"--recurrence persistent: --hidden-size {hidden_size} does not fit GPU 0, Tesla, which has {processors} "
        f"multiprocessors: {advice}"
    )
    assert compiled == []
