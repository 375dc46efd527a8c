"""Parse and validate the command line of jobs/scale.py."""

import argparse
import re
from math import isfinite
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

from lstm_dist.cli import TeachingParser
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import choose_hosts, parse_interface
from lstm_dist.errors import UserError
from lstm_dist.experiments.launchers import UNLIMITED, Horovodrun, Launcher, Srun
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.variation import ITEM_SIZES, Factors, Variation
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig

# Training settings that the points determine, and what the error message suggests instead.
_DETERMINED = {
    "global_batch_size": "use --streams",
    "batch_size_per_worker": "use --streams",
    "max_chars": "use --steps",
    "epochs": "use --epochs before the --",
    "run_dir": "use --out",
    "time_every": "use --time-every before the --",
    "until_perplexity": "use --to-perplexity before the --",
    "checkpoint_every": "leave it out",
    "log_every": "leave it out",
    "sample_length": "leave it out",
    "seed": "leave it out",
    "dry_run": "use --dry-run before the --",
}


class ScalingOptions(NamedTuple):
    """A parsed command line.

    Attributes:
        flags: flags of jobs/scale.py.
        workers: numbers of workers, ascending.
        factors: values of what else varies; the first of each is the experiment's own.
        modes: modes of the points.
        launcher: launcher of the workers, with the experiment's own settings.
        train_flags: flags of jobs/train.py.
        train_config: training configuration from `train_flags`.
    """

    flags: argparse.Namespace
    workers: List[int]
    factors: Factors
    modes: Sequence[str]
    launcher: Launcher
    train_flags: List[str]
    train_config: RunConfig

    @property
    def crews(self) -> List[Tuple[int, Variation]]:
        """Return the numbers of workers with each combination of factors, as far as the launcher has room for them."""
        return [
            (number, varied)
            for varied in self.factors.variations
            for number in self.workers
            if self.flags.only or number <= _room(self.launcher, varied.workers_per_node)
        ]

    @property
    def is_array(self) -> bool:
        """Return whether to submit the jobs to Slurm; one selected by --only runs in this process, as in the array."""
        return bool(self.flags.slurm_array and not self.flags.only)


def parse(argv: Sequence[str], description: str) -> ScalingOptions:
    """Parse a command line.

    Raises:
        UserError: if a flag is invalid; the message names it.
    """
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = _parser(description)
    flags = parser.parse(argv[:cut])
    _refuse_out_of_range(flags)
    if flags.what not in ("training", "network"):
        raise UserError(f"{flags.what}: should be training or network; flags of jobs/train.py go after a --")
    _refuse_ineffective({name for name, value in vars(flags).items() if value != parser.get_default(name)}, flags)
    workers = sorted(_parse_numbers("--workers", flags.workers))
    if flags.what == "network" and workers[-1] < 2:
        raise UserError(f"--workers {flags.workers}: one worker does not communicate: give more, as in 1,2,4")
    modes = _parse_names("--mode", flags.mode, MODES)
    factors = _parse_factors(flags)
    launcher = _launcher(flags, factors)
    if not flags.only:  # the selected job may need fewer workers
        _require_room(flags, workers, factors, launcher)
    train_flags = list(argv[cut + 1 :])
    train_config = _train_config(flags, workers, modes, train_flags)
    if factors.wire_dtype[0] != "float32":
        train_flags.append(f"--wire-dtype={factors.wire_dtype[0]}")
    if not flags.wire_dtype:
        factors = factors._replace(wire_dtype=(train_config.wire_dtype,))
    return ScalingOptions(flags, workers, factors, modes, launcher, train_flags, train_config)


_BELOW_ONE = ("time_every", "seconds", "to_perplexity")  # flags whose value may be below 1


def _refuse_out_of_range(flags: argparse.Namespace) -> None:
    """Raise UserError if a number is too small, infinite or nan."""
    for name, value in vars(flags).items():
        least = 0 if name in _BELOW_ONE else 1
        if isinstance(value, float) and not isfinite(value):
            raise UserError(f"{_flag(name)} {value:g}: should be a finite number")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < least:
            raise UserError(f"{_flag(name)} {value:g}: should be at least {least}")


def _flag(name: str) -> str:
    """Return the spelling of a flag on the command line."""
    return "-H" if name == "hosts" else f"--{name.replace('_', '-')}"


def _refuse_ineffective(given: Set[str], flags: argparse.Namespace) -> None:
    """Raise UserError if one of the `given` flags would have no effect in combination with the others."""
    is_network, needs_slurm = flags.what == "network", flags.slurm_array or flags.launcher == "srun"
    for names, has_no_effect, reason in (
        (("seconds", "largest"), not is_network, "only for network: use `jobs/scale.py network`, or leave it out"),
        (("max_epochs",), not flags.to_perplexity, "only with --to-perplexity: add that, or leave it out"),
        (("sbatch",), not flags.slurm_array, "only with --slurm-array: add that, or leave it out"),
        (
            ("workers_per_node",),
            not (needs_slurm or flags.hosts or flags.hostfile),
            "only with -H, --hostfile, --launcher srun or --slurm-array: add one, or leave it out",
        ),
        (
            ("hosts", "hostfile", "interface"),
            needs_slurm,
            "only for horovodrun, as Slurm selects the nodes: leave it out",
        ),
        (("controller",), needs_slurm, "only for horovodrun, as the tasks of srun use MPI: leave it out"),
        (("interface",), not (flags.hosts or flags.hostfile), "only with -H or --hostfile: add one, or leave it out"),
        (("to_perplexity", "wire_dtype"), is_network, "only for training: leave it out"),
        (("threads",), is_network and "," in flags.threads, "only for training: leave it out"),
        (
            ("workers_per_node",),
            is_network and "," in (flags.workers_per_node or ""),
            "several only for training: give one number",
        ),
    ):
        for name in names:
            if has_no_effect and name in given:
                raise UserError(f"{_flag(name)} {getattr(flags, name)}: {reason}")


def _parse_numbers(flag: str, text: str) -> Tuple[int, ...]:
    """Return the distinct numbers of a list, in its order."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise UserError(f"{flag} {text}: should be positive integers separated by commas, as in 1,2,4")
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def _parse_names(flag: str, text: str, known: Sequence[str]) -> Tuple[str, ...]:
    """Return the distinct names of a list, in its order."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise UserError(f"{flag} {text}: {name!r} should be one of {', '.join(known)}")
    return names


def _parse_factors(flags: argparse.Namespace) -> Factors:
    """Return the values of each factor; in an array of Slurm, a node has one worker by default."""
    per_node = "1" if flags.workers_per_node is None and flags.slurm_array else flags.workers_per_node
    wire_dtype = "float32" if flags.wire_dtype is None else flags.wire_dtype
    return Factors(
        workers_per_node=(None,) if per_node is None else _parse_numbers("--workers-per-node", per_node),
        threads=_parse_numbers("--threads", flags.threads),
        controller=_parse_names("--controller", flags.controller, ("mpi", "gloo")),
        wire_dtype=_parse_names("--wire-dtype", wire_dtype, list(ITEM_SIZES)),
    )


def _room(launcher: Launcher, per_node: Optional[int]) -> int:
    return launcher.varied(per_node, None).max_workers


def _require_room(flags: argparse.Namespace, workers: List[int], factors: Factors, launcher: Launcher) -> None:
    """Raise UserError if a number of workers, or of workers per node, fits in no combination."""
    rooms = {per_node: _room(launcher, per_node) for per_node in factors.workers_per_node}
    most = max(rooms.values())
    if workers[-1] > most:
        reason = f"at most {most} can run ({launcher.description}): give fewer, or more hosts"
        raise UserError(f"--workers {flags.workers}: {reason}")
    for per_node, room in rooms.items():
        if workers[0] > room:
            reason = f"{workers[0]} --workers do not fit on the hosts with {per_node} on each: give more"
            raise UserError(f"--workers-per-node {flags.workers_per_node}: {reason}")


def _train_config(
    flags: argparse.Namespace, workers: List[int], modes: Sequence[str], train_flags: List[str]
) -> RunConfig:
    """Parse the flags of jobs/train.py, and check that they do not set what the points determine."""
    config, defaults = parse_config(train_flags), parse_config([])
    for name, instead in _DETERMINED.items():
        if getattr(config, name) != getattr(defaults, name):
            raise UserError(f"{_flag(name)} after --: the points determine it: {instead}")
    if flags.wire_dtype and config.wire_dtype != defaults.wire_dtype:
        raise UserError("--wire-dtype after --: is also given before the --: leave one of them out")
    if flags.what == "network":
        return config
    if "strong" in modes and workers[-1] > flags.streams:
        raise UserError(
            f"--workers {flags.workers}: {workers[-1]} workers are more than the {flags.streams} --streams that they "
            "share in strong scaling: use more --streams, or --mode weak"
        )
    if flags.warm_up >= flags.epochs:
        raise UserError(f"--warm-up {flags.warm_up}: should be less than --epochs {flags.epochs}")
    if 0 < flags.to_perplexity <= 1:
        raise UserError(f"--to-perplexity {flags.to_perplexity:g}: should be above 1, the lowest possible perplexity")
    return config


def _launcher(flags: argparse.Namespace, factors: Factors) -> Launcher:
    """Return the launcher with the experiment's own settings."""
    per_node = factors.workers_per_node[0]
    if flags.launcher == "srun":
        return Srun.current().varied(per_node, None)
    if flags.slurm_array:
        return Srun(UNLIMITED, per_node or 1)
    hosts = tuple(choose_hosts(flags.hosts, flags.hostfile))
    interface = parse_interface(flags.interface) if flags.interface else ""
    workers = Workers(sum(host.slots for host in hosts), hosts, factors.controller[0], interface)
    return Horovodrun(workers).varied(per_node, None)


def _parser(description: str) -> TeachingParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(
        prog="jobs/scale.py", description=description, allow_abbrev=False, formatter_class=formatter
    )
    _add_experiment_flags(parser)
    _add_job_flags(parser)
    _add_launch_flags(parser)
    return parser


def _add_experiment_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", nargs="?", default="training", metavar="training|network", help="what to measure (default training)")
    add("--workers", required=True, metavar="N,N", help="numbers of workers, as in 1,2,4; the smallest is the baseline")
    add("--mode", default="weak,strong", metavar="M,M", help="weak, strong, or both (the default)")
    add("--repeat", type=int, default=3, metavar="N", help="repetitions of every job (default 3)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the results, which all hosts must see")
    add("--dry-run", action="store_true", help="print the commands of the jobs that remain, and run none")
    add("--only", metavar="NAME", help="run only this job; the name is that of its folder")
    add("--retry-failed", action="store_true", help="rerun failed jobs")
    add("--allow-mixed", action="store_true", help="accept results of different commits or machines")
    add("--timeline", type=Path, metavar="FILE", help="have Horovod write the timeline of a single job to this file")
    add("--to-perplexity", type=float, default=0.0, metavar="P", help="also train to this perplexity, in weak scaling")
    add(
        "--max-epochs",
        type=int,
        default=1000,
        metavar="N",
        help="--to-perplexity: give up after N epochs (default 1000)",
    )
    add("--seconds", type=float, default=1.0, metavar="S", help="network: measuring time per size (default 1)")
    add("--largest", type=int, default=64, metavar="MIB", help="network: largest buffer, in MiB (default 64)")


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("size of a job").add_argument
    add("--streams", type=int, default=32, metavar="B", help="streams of a single worker (default 32)")
    add("--steps", type=int, default=50, metavar="N", help="steps per epoch (default 50)")
    add("--epochs", type=int, default=5, metavar="N", help="epochs per job (default 5)")
    add("--warm-up", type=int, default=1, metavar="N", help="initial epochs that are not counted (default 1)")
    add("--time-every", type=int, default=25, metavar="N", help="time every Nth step (default 25, 0 = off)")
    add("--threads", default="1", metavar="N,N", help="OpenMP threads per worker (default 1)")
    wire = "types of the numbers sent: float32, float16, or both (default float32)"
    add("--wire-dtype", metavar="T,T", help=wire)


def _add_launch_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("launching the workers").add_argument
    launcher = "horovodrun (the default), or srun inside a Slurm allocation"
    add("--launcher", choices=("horovodrun", "srun"), default="horovodrun", help=launcher)
    controller = "controllers of horovodrun: mpi, gloo, or both (default mpi)"
    add("--controller", default="mpi", metavar="C,C", help=controller)
    per_node = "most workers on a node, which are filled in order (default: those of -H; 1 with --slurm-array)"
    add("--workers-per-node", "--per-node", dest="workers_per_node", metavar="N,N", help=per_node)
    add("-H", dest="hosts", metavar="HOST:N,...", help="hosts and their numbers of workers, filled in this order")
    add("--hostfile", metavar="FILE", help="file with the hosts, one per line")
    add("--interface", default="", metavar="IF", help="network interface for communication between the hosts")
    array = (
        "submit the jobs to Slurm as arrays and wait for them; after Ctrl-C, the same command collects their results"
    )
    add("--slurm-array", action="store_true", help=array)
    sbatch = "--slurm-array: flags of sbatch, as in '--gpus-per-node=4 --time=1:00:00'"
    add("--sbatch", default="", metavar="FLAGS", help=sbatch)
