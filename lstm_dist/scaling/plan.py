"""Parse and validate the command line of jobs/scale.py."""

import argparse
import re
from pathlib import Path
from typing import List, NamedTuple, Sequence, Set

from lstm_dist.cli import TeachingParser
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import choose_hosts, parse_interface
from lstm_dist.errors import UserError
from lstm_dist.experiments.launchers import UNLIMITED, Horovodrun, Launcher, Srun
from lstm_dist.scaling.point import MODES
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
}


class ScalingOptions(NamedTuple):
    """A parsed command line.

    Attributes:
        flags: flags of jobs/scale.py.
        workers: numbers of workers, ascending.
        modes: modes of the points.
        launcher: launcher of the workers.
        train_flags: flags of jobs/train.py.
        train_config: training configuration from `train_flags`.
    """

    flags: argparse.Namespace
    workers: List[int]
    modes: List[str]
    launcher: Launcher
    train_flags: List[str]
    train_config: RunConfig

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
    for name, value in vars(flags).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 1 and name not in _BELOW_ONE:
            raise UserError(f"{_flag(name)} {value:g}: should be at least 1")
    if flags.what not in ("training", "network"):
        raise UserError(f"{flags.what}: should be training or network; flags of jobs/train.py go after a --")
    _refuse_ineffective({name for name, value in vars(flags).items() if value != parser.get_default(name)}, flags)
    workers = _parse_workers(flags.workers)
    if flags.what == "network" and workers[-1] < 2:
        raise UserError(f"--workers {flags.workers}: one worker does not communicate: give more, as in 1,2,4")
    modes = flags.mode.split(",")
    for mode in modes:
        if mode not in MODES:
            raise UserError(f"--mode {flags.mode}: {mode!r} should be one of {', '.join(MODES)}")
    launcher = _launcher(flags)
    if workers[-1] > launcher.max_workers and not flags.only:  # the selected job may need fewer workers
        reason = f"at most {launcher.max_workers} can run ({launcher.description}): give fewer, or more hosts"
        raise UserError(f"--workers {flags.workers}: {reason}")
    train_flags = list(argv[cut + 1 :])
    train_config = _train_config(flags, workers, modes, train_flags)
    return ScalingOptions(flags, workers, modes, launcher, train_flags, train_config)


_BELOW_ONE = ("time_every", "seconds", "to_perplexity")  # flags whose value may be below 1


def _flag(name: str) -> str:
    """Return the spelling of a flag on the command line."""
    return "-H" if name == "hosts" else f"--{name.replace('_', '-')}"


def _refuse_ineffective(given: Set[str], flags: argparse.Namespace) -> None:
    """Raise UserError if one of the `given` flags would have no effect in combination with the others."""
    is_network, needs_slurm = flags.what == "network", flags.slurm_array or flags.launcher == "srun"
    for names, has_no_effect, reason in (
        (("seconds", "largest"), not is_network, "only for network: use `jobs/scale.py network`, or leave it out"),
        (("max_epochs",), not flags.to_perplexity, "only with --to-perplexity: add that, or leave it out"),
        (("per_node", "sbatch"), not flags.slurm_array, "only with --slurm-array: add that, or leave it out"),
        (
            ("hosts", "hostfile", "interface"),
            needs_slurm,
            "only for horovodrun, as Slurm selects the nodes: leave it out",
        ),
        (("controller",), needs_slurm, "only for horovodrun, as the tasks of srun use MPI: leave it out"),
        (("interface",), not (flags.hosts or flags.hostfile), "only with -H or --hostfile: add one, or leave it out"),
        (("to_perplexity",), is_network, "only for training: leave it out"),
    ):
        for name in names:
            if has_no_effect and name in given:
                raise UserError(f"{_flag(name)} {getattr(flags, name)}: {reason}")


def _parse_workers(text: str) -> List[int]:
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise UserError(f"--workers {text}: should be positive integers separated by commas, as in 1,2,4")
    return sorted({int(number) for number in text.split(",")})


def _train_config(flags: argparse.Namespace, workers: List[int], modes: List[str], train_flags: List[str]) -> RunConfig:
    """Parse the flags of jobs/train.py, and check that they do not set what the points determine."""
    config, defaults = parse_config(train_flags), parse_config([])
    for name, instead in _DETERMINED.items():
        if getattr(config, name) != getattr(defaults, name):
            raise UserError(f"{_flag(name)} after --: the points determine it: {instead}")
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


def _launcher(flags: argparse.Namespace) -> Launcher:
    if flags.launcher == "srun":
        return Srun.current()
    if flags.slurm_array:
        return Srun(tasks=UNLIMITED, per_node=flags.per_node)
    hosts = tuple(choose_hosts(flags.hosts, flags.hostfile))
    interface = parse_interface(flags.interface) if flags.interface else ""
    return Horovodrun(Workers(sum(host.slots for host in hosts), hosts, flags.controller, interface))


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
    add("--time-every", type=int, default=25, metavar="N", help="profile every Nth step (default 25, 0 = off)")
    add("--threads", type=int, default=1, metavar="N", help="OpenMP threads per worker (default 1)")


def _add_launch_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("launching the workers").add_argument
    launcher = "horovodrun (the default), or srun inside a Slurm allocation"
    add("--launcher", choices=("horovodrun", "srun"), default="horovodrun", help=launcher)
    add("--controller", choices=("mpi", "gloo"), default="mpi", help="controller of horovodrun (default mpi)")
    add("-H", dest="hosts", metavar="HOST:N,...", help="hosts and their numbers of workers, filled in this order")
    add("--hostfile", metavar="FILE", help="file with the hosts, one per line")
    add("--interface", default="", metavar="IF", help="network interface for communication between the hosts")
    array = (
        "submit the jobs to Slurm as arrays and wait for them; after Ctrl-C, the same command collects their results"
    )
    add("--slurm-array", action="store_true", help=array)
    add("--per-node", type=int, default=1, metavar="N", help="--slurm-array: workers per node (default 1)")
    sbatch = "--slurm-array: flags of sbatch, as in '--gpus-per-node=4 --time=1:00:00'"
    add("--sbatch", default="", metavar="FLAGS", help=sbatch)
