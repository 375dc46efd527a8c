"""How the workers of a job run, besides their number: workers per node, threads, controller, type of numbers sent."""

from itertools import product
from typing import Dict, List, Literal, NamedTuple, Optional, Sequence, Tuple

from pydantic import PositiveInt

from lstm_dist.experiments.records import Record
from lstm_dist.experiments.report.formatters import counted

Controller = Literal["mpi", "gloo"]
WireDtype = Literal["float32", "float16"]
ITEM_SIZES: Dict[str, int] = {"float32": 4, "float16": 2}  # bytes of a number


class Variation(Record):
    """Settings in which a job differs from its experiment; None where it does not.

    Attributes:
        workers_per_node: most workers on a node.
        threads: OpenMP threads per worker.
        controller: of Horovod.
        wire_dtype: type of the numbers that the workers send.
    """

    workers_per_node: Optional[PositiveInt] = None
    threads: Optional[PositiveInt] = None
    controller: Optional[Controller] = None
    wire_dtype: Optional[WireDtype] = None

    @property
    def given(self) -> Dict[str, object]:
        """Return the settings that differ."""
        return self.model_dump(exclude_none=True)

    @property
    def suffix(self) -> str:
        """Return what a job's name has in addition; nothing for a job with the settings of its experiment."""
        names = {"workers_per_node": "pernode", "threads": "threads"}
        return "".join(f"-{names.get(factor, '')}{value}" for factor, value in self.given.items())


class Factors(NamedTuple):
    """The values of a sweep; the first of each is the experiment's own. None are all workers that fit on a node."""

    workers_per_node: Tuple[Optional[int], ...] = (None,)
    threads: Tuple[int, ...] = (1,)
    controller: Tuple[str, ...] = ("mpi",)
    wire_dtype: Tuple[str, ...] = ("float32",)

    @property
    def own(self) -> Dict[str, object]:
        """Return the settings of the experiment."""
        return {factor: values[0] for factor, values in self._asdict().items()}

    @property
    def variations(self) -> List[Variation]:
        """Return every combination, that of the experiment's own settings first."""
        choices = [(None, *values[1:]) for values in self]
        return [Variation(**dict(zip(self._fields, chosen))) for chosen in product(*choices)]


def describe(setting: Dict[str, object], factors: Sequence[str]) -> str:
    """Return these factors of complete settings in words, as in "gloo, 2 threads"."""
    texts = {
        "controller": str(setting["controller"]),
        "threads": counted(int(str(setting["threads"])), "thread"),
        "workers_per_node": f"{setting['workers_per_node'] or 'all'} per node",
        "wire_dtype": str(setting["wire_dtype"]),
    }
    return ", ".join(text for factor, text in texts.items() if factor in factors)
