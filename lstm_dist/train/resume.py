"""Resuming a run: its last intact checkpoint, shared with all ranks."""

import contextlib
from pathlib import Path
from typing import IO, Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.comm.world import World
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import claim
from lstm_dist.model.language_model import LanguageModel, LSTMState
from lstm_dist.run.checkpoint import STATE, Checkpoint
from lstm_dist.run.checkpoint_dir import CheckpointDir
from lstm_dist.run.run_log import RunLog
from lstm_dist.train.callbacks import Progress
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig
from lstm_dist.train.same_run import inherited_settings
from lstm_dist.train.setup import Job
from lstm_dist.train.step import NotFiniteError
from lstm_dist.train.trainer import Trainer


class PreviousRun(NamedTuple):
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
        """Parse a command line that resumes this run; settings not given keep their previous values.

        Raises:
            UserError: if a setting is invalid, or fewer epochs are wanted than were trained.
        """
        settings = parse_config(argv, inherited_settings(self.facts["config"]))
        if settings.epochs < self.progress.epoch:
            raise UserError(
                f"--epochs {settings.epochs}: {self.progress.epoch} epochs of this run are done: "
                "give more, or leave it out",
                ExitStatus.BAD_CONFIG,
            )
        return settings

    def restore(self, job: Job, world: World) -> LSTMState:
        """Load the weights on the root, and return this worker's part of the hidden state.

        Raises:
            CollectiveError: if the checkpoint belongs to a different model.
        """
        world.run_on_root(lambda: self._load(job.model), "restore")
        streams = job.settings.streams(world.size)
        if self.checkpoint is None:
            state = job.model.zero_state(streams)
        else:
            state = job.model.make_state(*(self.checkpoint.state[name] for name in STATE))
        for name, part in state._asdict().items():
            world.broadcast_(part, name)
        return LSTMState(*(part[job.batches.rows] for part in state))

    def lines(self, rounding: Mapping[str, Any], software: Mapping[str, Any], epochs: int) -> List[str]:
        """Return what the log says of the resume; see `describe` and `describe_software`."""
        other = self.describe_software(software)
        return [*self.warnings, *([other] if other else []), self.describe(rounding, epochs)]

    def describe_software(self, here: Mapping[str, Any]) -> str:
        """Return a line that says which software differs from that of the checkpoint; empty if none does.

        Args:
            here: the current `code`, a digest, and `versions` of packages; checkpoints of earlier versions of this
                program lack the digest.
        """
        then, versions = self.facts.get("code"), self.facts.get("versions", {})
        names = sorted({*versions, *here["versions"]})
        changed = [] if then == here["code"] else [f"code {(then or 'unknown')[:12]} -> {here['code'][:12]}"]
        for name in names:
            before, now = versions.get(name, "none"), here["versions"].get(name, "none")
            if before != now:
                changed.append(f"{name} {before} -> {now}")
        if not changed:
            return ""
        return (
            f"note: other software than that of the checkpoint continues this run ({', '.join(changed)}), so the "
            "result may differ from that of an uninterrupted run; `starts` in run.json has all starts"
        )

    def describe(self, here: Mapping[str, Any], epochs: int) -> str:
        """Describe where the run resumes, and whether its result will be bitwise that of an uninterrupted run.

        Args:
            here: current `workers`, `controller`, `threads`, and `kernels`, on which the rounding depends; checkpoints
                of earlier versions lack the last.
            epochs: total number of epochs.
        """
        if self.progress.epoch >= epochs:
            return f"all {self.progress.epoch} epochs are done: train longer with more --epochs"
        if 1 in (here["workers"], self.facts["workers"]):
            here = {**here, "controller": self.facts["controller"]}  # which has no work with a single worker
        line = f"resumed after step {self.progress.step}, in epoch {self.progress.epoch + 1}"
        before = {"kernels": "unknown", **self.facts}
        changed = [f"{key} {before[key]} -> {here[key]}" for key in here if before[key] != here[key]]
        return (
            f"{line}; {', '.join(changed)}: the trajectory is the same up to floating-point rounding"
            if changed
            else line
        )

    def _load(self, model: LanguageModel) -> None:
        assert self.checkpoint is not None  # noqa: S101 - the root has it
        model.load(self.checkpoint.parameters, "--resume")


def load_previous(world: World, checkpoints: CheckpointDir, sets_aside: bool = True) -> PreviousRun:
    """Read the newest intact checkpoint on the root, and share its metadata with all ranks.

    Args:
        world: all workers.
        checkpoints: of the run.
        sets_aside: give newer damaged ones another name.

    Raises:
        CollectiveError: if there is none.
    """
    found = world.run_on_root(lambda: checkpoints.newest(sets_aside), "newest")
    facts, refused = world.broadcast_object([found.checkpoint.facts, found.refused] if found else None, "facts")
    progress = Progress(**facts.pop("progress"))
    return PreviousRun(progress, facts, refused, found.checkpoint if found else None)


def find_previous(settings: RunConfig, world: World) -> Tuple[Optional[PreviousRun], Optional[IO[str]]]:
    """Return the run to resume and the root's lock on its directory; (None, None) if a new run is to start.

    A dry run takes no lock.
    """
    if not (settings.resume or settings.auto_resume) or settings.run_dir is None:
        return None, None
    checkpoints = CheckpointDir.of_run(settings.run_dir)
    if not settings.resume and not world.broadcast_object(world.is_root and checkpoints.has_any(), "has_any"):
        return None, None
    if settings.dry_run:
        world.run_on_root(checkpoints.require, "claim")
        return load_previous(world, checkpoints, sets_aside=False), None
    lock = world.run_on_root(lambda: claim(checkpoints.require().parent), "claim")
    return load_previous(world, checkpoints), lock


def checkpoint_last_finite_step(
    trainer: Trainer, error: NotFiniteError, job: Job, run_dir: Path, log: RunLog, world: World
) -> NoReturn:
    """Write a checkpoint of the last step with finite numbers, and end the run.

    The weights have already been updated with numbers that are not finite, so the steps since the last checkpoint are
    repeated.

    Raises:
        CollectiveError: always.
    """
    last = trainer.progress.step
    log.say(
        f"step {last + 1}: {error}; repeating the steps since the last checkpoint, to save the weights of step {last}"
    )
    previous = load_previous(world, CheckpointDir.of_run(run_dir))
    with contextlib.suppress(NotFiniteError):  # if the replay fails too, the existing checkpoint remains the last
        trainer.replay(previous.progress, previous.restore(job, world), last)
    raise CollectiveError(
        f"step {last + 1}: training has diverged ({error}): lower --learning-rate or --max-norm; the last checkpoint "
        "is from before this step",
        ExitStatus.NOT_FINITE,
    )
