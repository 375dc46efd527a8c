"""Resuming a run: its last intact checkpoint, shared with all ranks."""

import contextlib
import json
from pathlib import Path
from typing import IO, Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from lstm_dist.comm.horovod_group import World
from lstm_dist.comm.process_group import SettledError
from lstm_dist.errors import ExitStatus
from lstm_dist.files import claim
from lstm_dist.model.char_lstm import CharLSTM, LSTMState
from lstm_dist.run.checkpoint import STATE, Checkpoint
from lstm_dist.run.checkpoint_dir import Store
from lstm_dist.run.run_log import RunLog
from lstm_dist.train.config import FIELDS, RunConfig, parse_config
from lstm_dist.train.setup import Job
from lstm_dist.train.trainer import NotFiniteError, Progress, Trainer

_ANEW = ("init", "run_dir", "overwrite", "resume", "auto_resume", "time_limit")  # not inherited on resume


class Past(NamedTuple):
    """The completed part of a run, on every rank.

    Attributes:
        progress: of the checkpoint.
        facts: the checkpoint's metadata.
        warnings: why newer checkpoints were refused.
        checkpoint: the complete checkpoint on the root, None elsewhere.
    """

    progress: Progress
    facts: Dict[str, Any]
    warnings: List[str]
    checkpoint: Optional[Checkpoint]

    def parse_config(self, argv: Optional[Sequence[str]]) -> RunConfig:
        """Parse a command line that resumes this run; settings not given keep their previous values."""
        return parse_config(argv, {k: v for k, v in self.facts["config"].items() if k in FIELDS and k not in _ANEW})

    def restore(self, job: Job, world: World) -> LSTMState:
        """Load the weights on the root, and return this worker's part of the hidden state.

        Raises:
            SettledError: if the checkpoint belongs to a different model.
        """
        world.settle_root(lambda: self._load(job.model), "restore")
        parts = []
        for name, whole in zip(STATE, job.model.zero_state(job.settings.streams(world.size))):
            if self.checkpoint is not None:
                whole[:] = self.checkpoint.state[name]
            world.broadcast_(whole, name)
            parts.append(whole[job.batches.rows])
        return LSTMState(*parts)

    def describe(self, here: Mapping[str, Any], epochs: int) -> str:
        """Describe where the run resumes, and whether its result will be bitwise that of an uninterrupted run.

        Args:
            here: current `workers`, `controller` and `threads`.
            epochs: total number of epochs.
        """
        if self.progress.epoch >= epochs:
            return f"all {self.progress.epoch} epochs are done: go on with more --epochs"
        line = f"resumed after step {self.progress.step}, in epoch {self.progress.epoch + 1}"
        changed = [f"{key} {self.facts[key]} -> {here[key]}" for key in here if self.facts[key] != here[key]]
        return f"{line}; {', '.join(changed)}: the same trajectory but for the last bits" if changed else line

    def _load(self, model: CharLSTM) -> None:
        assert self.checkpoint is not None  # noqa: S101 - the root has it
        model.load(self.checkpoint.parameters, "--resume")


def recall(world: World, store: Store) -> Past:
    """Read the newest intact checkpoint on the root, and share its metadata with all ranks.

    Raises:
        SettledError: if there is none.
    """
    found = world.settle_root(store.newest, "recall")
    told = json.dumps([found.checkpoint.facts, found.refused] if found else None)
    facts, refused = json.loads(world.share_text(told, "facts"))
    progress = Progress(**facts.pop("progress"))
    return Past(progress, facts, refused, found.checkpoint if found else None)


def find_past(settings: RunConfig, world: World) -> Tuple[Optional[Past], Optional[IO[str]]]:
    """Return the run to resume and the root's lock on its directory; (None, None) if a new run is to start."""
    if not (settings.resume or settings.auto_resume) or settings.run_dir is None:
        return None, None
    store = Store(settings.run_dir / "checkpoints")
    if not settings.resume and not world.share_text("begun" if world.is_root and store.is_begun() else "", "begun"):
        return None, None
    lock = world.settle_root(lambda: claim(store.require().parent), "claim")
    return recall(world, store), lock


def go_back(trainer: Trainer, error: NotFiniteError, job: Job, run_dir: Path, log: RunLog, world: World) -> NoReturn:
    """Write a checkpoint of the last step with finite numbers, and end the run.

    Raises:
        SettledError: always.
    """
    last = trainer.progress.step
    log.say(f"step {last + 1}: {error}; going back to the last checkpoint for the weights of step {last}")
    past = recall(world, Store(run_dir / "checkpoints"))
    with contextlib.suppress(NotFiniteError):  # if the replay fails too, the existing checkpoint remains the last
        trainer.replay(past.progress, past.restore(job, world), last)
    raise SettledError(
        f"step {last + 1}: training has diverged ({error}): lower --learning-rate or --max-norm; the last checkpoint "
        "is of the steps before",
        ExitStatus.NOT_FINITE,
    )
