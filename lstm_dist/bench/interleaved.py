"""Time worker pools in turns, so that a temporary slowdown of the machine affects all of them.

A: 6 steps | B: 2 steps | C: 5 steps | A: 6 steps | B: 2 steps | ...
"""

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from lstm_dist.bench.case import Case
from lstm_dist.bench.worker_pool import Entry, WorkerPool
from lstm_dist.errors import UserError
from lstm_dist.model.parameters import initial_parameters

_TURN_SECONDS = 0.4
_TOLERANCE = 1e-4  # of the largest element of a gradient


class Timing(NamedTuple):
    """Measurements of an entry.

    Attributes:
        seconds: seconds per step of the slowest worker, one value per turn.
        resident_bytes: peak memory of any worker, beyond its memory after importing its libraries.
    """

    entry: Entry
    seconds: List[float]
    resident_bytes: int

    def quartiles_ms(self) -> Tuple[float, float, float]:
        """Return the lower quartile, median and upper quartile in milliseconds per step."""
        low, median, high = np.percentile(np.array(self.seconds) * 1000, [25, 50, 75])
        return float(low), float(median), float(high)

    @property
    def chars_per_sec(self) -> float:
        """Return the median throughput of all workers together."""
        return self.entry.case.chars_per_step * 1000 / self.quartiles_ms()[1]

    @property
    def microseconds_per_char(self) -> float:
        """Return the median time per character of all workers together."""
        return 1e6 / self.chars_per_sec

    def time_ratio(self, other: "Timing") -> float:
        """Return the time per character divided by that of `other` in the same turn, as the median over the turns."""
        own = np.array(self.seconds) / self.entry.case.chars_per_step
        others = np.array(other.seconds) / other.entry.case.chars_per_step
        return float(np.median(own / others))

    def to_json(self) -> Dict[str, Any]:
        """Return the entry, the derived numbers, and the values of all turns."""
        low, median, high = self.quartiles_ms()
        return {
            "contestant": self.entry.implementation,  # the key is part of the format of --json files
            "controller": self.entry.controller if self.entry.case.workers > 1 else None,
            **self.entry.case._asdict(),
            "ms_per_step": {"lower_quartile": low, "median": median, "upper_quartile": high},
            "chars_per_sec": self.chars_per_sec,
            "resident_bytes": self.resident_bytes,
            "seconds_per_step": self.seconds,
        }


@contextmanager
def start_pools(entries: Sequence[Entry]) -> Iterator[List[WorkerPool]]:
    """Start the worker pools, and check that all entries of equal sizes compute the same loss and gradients."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pools: List[WorkerPool] = []
        references: Dict[Case, Dict[str, np.ndarray]] = {}
        for number, entry in enumerate(tqdm(entries, desc="starting", leave=False)):
            pool_folder = folder / str(number)
            pool_folder.mkdir()
            case = entry.case
            save_file(initial_parameters(case.vocab_size, case.hidden_size, 0), pool_folder / "initial.safetensors")
            pools.append(stack.enter_context(WorkerPool(entry, pool_folder)))
            results = first_step(pools[-1])
            if results:
                require_equal(entry, results, references.setdefault(case.on_one_worker, results))
        yield pools


def first_step(pool: WorkerPool) -> Dict[str, np.ndarray]:
    """Run the pool's first step, and return the loss as "loss" and the gradients under the D2L chapter's names.

    The result is empty for an implementation that has no gradients to compare.
    """
    loss = sum(reply["loss"] for reply in pool.call("first_step"))
    path = pool.folder / "gradients.safetensors"
    return {"loss": np.array(loss), **load_file(path)} if path.exists() else {}


def require_equal(entry: Entry, results: Dict[str, np.ndarray], reference: Dict[str, np.ndarray]) -> None:
    """Check that an entry computes the same as the reference, so that timings are comparable.

    Raises:
        UserError: if the loss or a gradient differs by more than 1e-4 of its largest element.
    """
    for name, expected in reference.items():
        difference = np.abs(results[name] - expected).max() / np.abs(expected).max()
        if not difference <= _TOLERANCE:
            what = name if name == "loss" else f"gradient of {name}"
            raise UserError(
                f"{entry.implementation}: the {what} of the first step differs by {difference:.1e} of its largest "
                f"element from that of the implementation started first (limit {_TOLERANCE:g}), so their times are not "
                "comparable; leave one of the two out with --only"
            )


def measure_in_turns(pools: Sequence[WorkerPool], turns: int, on_turn: Callable[[], object]) -> List[Timing]:
    """Time all worker pools; call `on_turn` after each pool's turn.

    A warm-up of three steps determines how many steps each pool runs in its turns.
    """

    def seconds_per_step(pool: WorkerPool, steps: int) -> float:
        slowest: float = max(reply["seconds"] for reply in pool.call("steps", steps))
        return slowest / steps

    steps_per_turn = [max(1, round(_TURN_SECONDS / seconds_per_step(pool, 3))) for pool in pools]
    seconds: List[List[float]] = [[] for _ in pools]
    for _ in range(turns):
        for pool, steps, values in zip(pools, steps_per_turn, seconds):
            values.append(seconds_per_step(pool, steps))
            on_turn()
    peaks = [max(reply["bytes"] for reply in pool.call("steps", 1)) for pool in pools]
    return [Timing(pool.entry, values, peak) for pool, values, peak in zip(pools, seconds, peaks)]
