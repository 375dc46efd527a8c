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
from lstm_dist.bench.worker_pool import Entry, Team
from lstm_dist.errors import UserError
from lstm_dist.model.parameters import initial_parameters

_TURN_SECONDS = 0.4
_TOLERANCE = 1e-4


class Timing(NamedTuple):
    """Measurements of an entry.

    Attributes:
        seconds: seconds per step of the slowest process, one value per turn.
        resident_bytes: peak memory of any process, beyond its memory after importing its libraries.
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
        """Median throughput of all workers together."""
        return self.entry.case.chars_per_step * 1000 / self.quartiles_ms()[1]

    @property
    def microseconds_per_char(self) -> float:
        """Median time per character of all workers together."""
        return 1e6 / self.chars_per_sec

    def times_as_long_as(self, other: "Timing") -> float:
        """Return the median over turns of the ratio of times per character, turn by turn."""
        here = np.array(self.seconds) / self.entry.case.chars_per_step
        there = np.array(other.seconds) / other.entry.case.chars_per_step
        return float(np.median(here / there))

    def to_json(self) -> Dict[str, Any]:
        """Return the entry, the derived numbers, and all turns."""
        low, median, high = self.quartiles_ms()
        return {
            "contestant": self.entry.contestant,
            "controller": self.entry.controller if self.entry.case.workers > 1 else None,
            **self.entry.case._asdict(),
            "ms_per_step": {"lower_quartile": low, "median": median, "upper_quartile": high},
            "chars_per_sec": self.chars_per_sec,
            "resident_bytes": self.resident_bytes,
            "seconds_per_step": self.seconds,
        }


def first_window(team: Team) -> Dict[str, np.ndarray]:
    """Return the loss and gradients of the pool's first step, under "loss" and the D2L chapter's names."""
    loss = sum(answer["loss"] for answer in team.ask("first"))
    path = team.folder / "gradients.safetensors"
    return {"loss": np.array(loss), **load_file(path)} if path.exists() else {}


def require_equal(entry: Entry, found: Dict[str, np.ndarray], reference: Dict[str, np.ndarray]) -> None:
    """Check that an entry computes the same as the reference, so that timings are comparable.

    Raises:
        UserError: if the loss or a gradient differs by more than 1e-4 of its largest element.
    """
    for name, expected in reference.items():
        difference = np.abs(found[name] - expected).max() / np.abs(expected).max()
        if not difference <= _TOLERANCE:
            raise UserError(f"{entry.contestant}: computes another {name} than ours: {difference:.1e} apart")


@contextmanager
def started(entries: Sequence[Entry]) -> Iterator[List[Team]]:
    """Start the worker pools, and check that all with the same task agree."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        teams: List[Team] = []
        references: Dict[Case, Dict[str, np.ndarray]] = {}
        for number, entry in enumerate(tqdm(entries, desc="starting", leave=False)):
            own = folder / str(number)
            own.mkdir()
            case = entry.case
            save_file(initial_parameters(case.vocab_size, case.hidden_size, 0), own / "initial.safetensors")
            teams.append(stack.enter_context(Team(entry, own)))
            found = first_window(teams[-1])
            if found:
                require_equal(entry, found, references.setdefault(case.task, found))
        yield teams


def take_turns(teams: Sequence[Team], turns: int, tick: Callable[[], object]) -> List[Timing]:
    """Time all worker pools; call `tick` after each pool's turn. The first turn is a warm-up and is dropped."""

    def seconds(team: Team, steps: int) -> float:
        slowest: float = max(answer["seconds"] for answer in team.ask("steps", steps))
        return slowest / steps

    steps = [max(1, round(_TURN_SECONDS / seconds(team, 3))) for team in teams]
    taken: List[List[float]] = [[] for _ in teams]
    for _ in range(turns):
        for team, count, mine in zip(teams, steps, taken):
            mine.append(seconds(team, count))
            tick()
    peaks = [max(answer["bytes"] for answer in team.ask("steps", 1)) for team in teams]
    return [Timing(team.entry, mine, peak) for team, mine, peak in zip(teams, taken, peaks)]
