"""The part of a run that is done: its last whole checkpoint, told to all ranks."""

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

_ANEW = ("init", "run_dir", "overwrite", "resume", "auto_resume", "time_limit")  # said anew with every part of a run


class Past(NamedTuple):
    """The part of a run that is done, on every rank.

    Attributes:
        progress: where it is.
        facts: what its checkpoint holds beside weights and state.
        warnings: what is wrong with those that are newer.
        checkpoint: the whole of it, on the root.
    """

    progress: Progress
    facts: Dict[str, Any]
    warnings: List[str]
    checkpoint: Optional[Checkpoint]

    def parse_config(self, argv: Optional[Sequence[str]]) -> RunConfig:
        """The configuration of a command line that goes on with this: what it does not give stays as it was."""
        return parse_config(argv, {k: v for k, v in self.facts["config"].items() if k in FIELDS and k not in _ANEW})

    def restore(self, job: Job, world: World) -> LSTMState:
        """Fill the model of the root; every worker's part of the hidden state of all streams.

        Raises:
            SettledError: when the checkpoint is of another model.
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
        """Where the run goes on, and whether it will end on the same bits as if it had never stopped.

        Args:
            here: `workers`, `controller` and `threads` of the part that begins.
            epochs: at which it will end.
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
    """The newest whole checkpoint, read by the root, its facts told to all.

    Raises:
        SettledError: when there is none.
    """
    found = world.settle_root(store.newest, "recall")
    told = json.dumps([found.checkpoint.facts, found.refused] if found else None)
    facts, refused = json.loads(world.share_text(told, "facts"))
    progress = Progress(**facts.pop("progress"))
    return Past(progress, facts, refused, found.checkpoint if found else None)


def find_past(settings: RunConfig, world: World) -> Tuple[Optional[Past], Optional[IO[str]]]:
    """What is to be gone on with, and the root's lock on its directory; nothing where the run is to begin."""
    if not (settings.resume or settings.auto_resume) or settings.run_dir is None:
        return None, None
    store = Store(settings.run_dir / "checkpoints")
    if not settings.resume and not world.share_text("begun" if world.is_root and store.is_begun() else "", "begun"):
        return None, None
    lock = world.settle_root(lambda: claim(store.require().parent), "claim")
    return recall(world, store), lock


def go_back(trainer: Trainer, error: NotFiniteError, job: Job, run_dir: Path, log: RunLog, world: World) -> NoReturn:
    """Leave a checkpoint of the step before the one whose numbers were not finite, and end.

    Raises:
        SettledError: always.
    """
    last = trainer.progress.step
    log.say(f"step {last + 1}: {error}; going back to the last checkpoint for the weights of step {last}")
    past = recall(world, Store(run_dir / "checkpoints"))
    with contextlib.suppress(NotFiniteError):  # what cannot be repeated leaves that checkpoint as the last
        trainer.replay(past.progress, past.restore(job, world), last)
    raise SettledError(
        f"step {last + 1}: training has diverged ({error}): lower --learning-rate or --max-norm; the last checkpoint "
        "is of the steps before",
        ExitStatus.NOT_FINITE,
    )
