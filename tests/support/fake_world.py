"""A group without other processes, and a run log that keeps its records."""

from typing import Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple

import numpy as np

from lstm_dist.comm.process_group import Group
from lstm_dist.run.metrics_file import EpochMetrics, StepsReport
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.step_times import StepTimes


class FakeWorld(Group):
    """One rank of a group of any size; the other ranks have the same values as this one, or given ones.

    Attributes:
        answers: the objects of all ranks, by the name of the collective that gathers them.
        gathered: what this rank contributed to each collective, by name.
        averaged: length and type of communication of each array that was averaged.
    """

    controller = "gloo"
    mpi = None

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        is_one_host: bool = True,
        has_nccl: bool = False,
        answers: Mapping[str, Sequence[Any]] = {},
    ) -> None:
        super().__init__(rank, size)
        self.local_rank, self.is_one_host, self.has_nccl = local_rank, is_one_host, has_nccl
        self.answers = answers
        self.gathered: Dict[str, Any] = {}
        self.averaged: List[Tuple[int, str]] = []

    def allgather_object(self, value: Any, name: str) -> List[Any]:
        self.gathered[name] = value
        return list(self.answers.get(name, [value] * self.size))

    def allgather_bytes(self, data: bytes, name: str) -> List[bytes]:  # noqa: ARG002 - an interface
        return [data] * self.size

    def average_(self, array: Any, name: str, scale: float = 1.0, wire_dtype: str = "float32") -> None:  # noqa: ARG002
        self.averaged.append((array.size, wire_dtype))
        array *= scale

    def broadcast_(self, array: Any, name: str) -> None:
        pass

    def use_host_memory(self) -> None:
        self.has_nccl = False

    def sum(self, values: Sequence[float], name: str) -> np.ndarray:  # noqa: ARG002
        return np.asarray(values) * self.size

    def gather_rows(self, array: Any, name: str) -> np.ndarray:  # noqa: ARG002
        rows: np.ndarray = array.asnumpy()
        return rows

    def leave(self) -> None:
        pass

    def abort(self, status: int) -> NoReturn:
        raise AssertionError(f"aborted with status {status}")


class SilentStartup:
    """A startup that is not reported."""

    def enter(self, phase: str) -> None:
        pass

    def finish(self) -> None:
        pass


class Record(RunLog):
    """A run log that keeps what it is given."""

    def __init__(self) -> None:
        self.losses: List[float] = []
        self.norms: List[float] = []
        self.shown: List[int] = []
        self.reports: List[StepsReport] = []
        self.valid: List[Optional[float]] = []
        self.chars = 0
        self.parts: List[Tuple[int, StepTimes]] = []

    def epoch(self, metrics: EpochMetrics, show: bool) -> None:
        self.losses.append(metrics.loss)
        self.norms.append(metrics.grad_norm)
        self.valid.append(metrics.valid_perplexity)
        if show:
            self.shown.append(metrics.epoch)

    def report(self, report: StepsReport) -> None:
        self.reports.append(report)

    def advance(self, chars: int) -> None:
        self.chars += chars

    def times(self, epoch: int, rows: Sequence[StepTimes]) -> None:
        self.parts += [(epoch, row) for row in rows]
