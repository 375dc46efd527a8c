"""What an attempt at a run records about its course: its events in the timeline, and the current status and goodput."""

import contextlib
import time
from pathlib import Path
from typing import Any, Dict, Optional

from lstm_dist.cluster import launch_env
from lstm_dist.comm.world import World
from lstm_dist.files import is_superseded
from lstm_dist.run import timeline
from lstm_dist.run.goodput import FAILED, Goodput, History
from lstm_dist.run.phase_clock import CHECKPOINTS, ENDING, SAMPLES, STARTING, STEPS, VALIDATION, PhaseClock
from lstm_dist.run.run_card import read_card, write_card
from lstm_dist.run.status import read_status, write_status
from lstm_dist.run.timeline import COMMIT, END, START

_PHASES = {  # by the phases of the watchdog
    "start": STARTING,
    "step": STEPS,
    "samples": SAMPLES,
    "validation": VALIDATION,
    "checkpoint": CHECKPOINTS,
}
_OF_ROOT = ("epoch", "checkpoint", "goodput")  # facts of status.json that only the root knows
_STATUS_EVERY = 5.0  # seconds between two refreshes of status.json, from which one learns when a killed job ended
_WORTH_A_LINE = 600.0  # seconds of a run that was not restarted


class AttemptRecord:
    """The record of one attempt. Every rank measures the phases; only the root writes the timeline.

    A rank that fails while the root is lost writes its own measurements to status.json, and keeps what only the root
    knows. The next attempt takes them over into the timeline, so that the end of this one is known.
    """

    def __init__(self, run_dir: Path, world: World, first_step: int) -> None:
        """Record the start; all ranks call it together.

        Args:
            run_dir: of the run.
            world: all workers.
            first_step: the step after which the attempt continues.
        """
        self._run_dir = run_dir
        # The attempt of all ranks is that of the root, whose launcher may be on another host than theirs.
        self._began = float(world.broadcast_object(launch_env.began(), "began"))
        self._clock = PhaseClock(self._began)
        self._clock.enter(STARTING)
        self._history: Optional[History] = None
        self._committed: Dict[str, Any] = {}
        self._refresh_at = time.monotonic() + _STATUS_EVERY
        if world.is_root:
            self._history = History(timeline.read(run_dir))
            before = {"previous": self._end_of_previous()}
            self._append(START, first_step, began=self._began, workers=world.size, **before)
            self.write_status("running", first_step)

    def enter(self, phase: str, step: int) -> None:
        """Enter a phase of the watchdog after `step`; on the root, keep status.json up to date."""
        self._clock.enter(_PHASES[phase])
        if self._history is not None and time.monotonic() >= self._refresh_at:
            self.write_status("running", step)

    def commit(self, step: int, epoch: int, checkpoint: str) -> None:
        """Record a checkpoint, on the root."""
        self._clock.enter(CHECKPOINTS)
        self._append(COMMIT, step)
        self._committed = {"epoch": epoch, "checkpoint": checkpoint}
        self.write_status("running", step)

    def begin_end(self) -> None:
        """Enter the last phase, in which no step is done."""
        self._clock.enter(ENDING)

    def end(self, state: str, step: int, **facts: Any) -> None:
        """Record how the attempt ends, on any rank; the goodput is also written to run.json.

        The time since the last progress of an attempt that fails is that of a stall, and belongs to no phase.
        """
        if state != FAILED:
            self._clock.enter(ENDING)
        if self._history is not None:
            self._append(END, step, state=state, **facts)
            self._add_to_card()
        self.write_status(state, step, **facts)

    def write_status(self, state: str, step: int, **facts: Any) -> None:
        """Write status.json with the measurements so far, and what is known of the last checkpoint."""
        self._refresh_at = time.monotonic() + _STATUS_EVERY
        measured: Dict[str, Any] = {"began": self._began, "seconds": self._clock.read()}
        if self._history is not None:
            measured["goodput"] = self._goodput().record()
        write_status(self._run_dir, state, **{"step": step, **self._known_to_root(), **facts, **measured})

    def summary(self) -> str:
        """Return the goodput so far in a line, on the root; empty for a short run that was not restarted."""
        if self._history is None:
            return ""
        self._clock.enter(ENDING)
        so_far = self._goodput()
        return so_far.describe() if so_far.attempts > 1 or so_far.wall >= _WORTH_A_LINE else ""

    def _goodput(self) -> Goodput:
        """Return the goodput of the run up to the last entry of a phase."""
        assert self._history is not None  # noqa: S101 - only called on the root
        return self._history.goodput(self._clock.read())

    def _append(self, event: str, step: int, **facts: Any) -> None:
        assert self._history is not None  # noqa: S101 - only called on the root
        self._history.add(timeline.append(self._run_dir, event, step=step, seconds=self._clock.read(), **facts))

    def _known_to_root(self) -> Dict[str, Any]:
        """Return what the root knows besides; on other ranks, what it has written to status.json in this attempt."""
        if self._history is not None:
            return self._committed
        status = read_status(self._run_dir)
        if not isinstance(status, dict) or status.get("began") != self._began:
            return {}
        return {name: status[name] for name in _OF_ROOT if name in status}

    def _end_of_previous(self) -> Optional[Dict[str, Any]]:
        """Return the last measurements of the attempt before, which may have been killed; None if they are unknown."""
        assert self._history is not None  # noqa: S101 - only called on the root
        status = read_status(self._run_dir)
        attempts = self._history.attempts
        if not attempts or not isinstance(status, dict) or status.get("began") != attempts[-1].began:
            return None
        return {name: status.get(name) for name in ("state", "step", "seconds", "reason")}

    def _add_to_card(self) -> None:
        """Write the goodput to run.json; write errors are ignored, as those of status.json."""
        card = read_card(self._run_dir)
        with contextlib.suppress(OSError):
            if card and not is_superseded(self._run_dir):
                write_card(self._run_dir, {**card, "goodput": self._goodput().record()})
