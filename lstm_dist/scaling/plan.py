"""Parse and validate the command line of jobs/scale.py."""

import argparse
import re
from pathlib import Path
from typing import List, NamedTuple, Sequence, Set

from lstm_dist.cli import TeachingParser
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import choose_hosts, parse_interface
from lstm_dist.errors import UserError
from lstm_dist.experiments.launchers import Horovodrun, Launcher, Srun
from lstm_dist.scaling.point import MODES
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig

# Training settings that the points determine, and what the error message suggests instead.
_DECIDED = {
    "global_batch_size": "give --streams",
    "batch_size_per_worker": "give --streams",
    "max_chars": "give --steps",
    "epochs": "give --epochs before the --",
    "run_dir": "give --out",
    "time_every": "give --time-every before the --",
    "until_perplexity": "give --to-perplexity before the --",
    "checkpoint_every": "leave it out",
    "log_every": "leave it out",
    "sample_length": "leave it out",
    "seed": "leave it out",
}


class Request(NamedTuple):
    """A parsed command line.

    Attributes:
        options: flags of jobs/scale.py.
        workers: numbers of workers, ascending.
        modes: modes of the points.
        launcher: launcher of the workers.
        flags: flags of jobs/train.py.
        settings: training configuration from `flags`.
    """

    options: argparse.Namespace
    workers: List[int]
    modes: List[str]
    launcher: Launcher
    flags: List[str]
    settings: RunConfig

    @property
    def is_array(self) -> bool:
        """Whether to submit the jobs to Slurm; a job selected with --only runs in this process, as within the array."""
        return bool(self.options.slurm_array and not self.options.only)


def parse(argv: Sequence[str], description: str) -> Request:
    """Parse a command line.

    Raises:
        UserError: if a flag is invalid; the message names it.
    """
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = _parser(description)
    options = parser.parse(argv[:cut])
    for name, value in vars(options).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 1 and name not in _MAY_BE_LESS:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: should be at least 1")
    if options.what not in ("training", "network"):
        raise UserError(f"{options.what}: should be training or network; flags of jobs/train.py go behind a --")
    _refuse_unmeant({name for name, value in vars(options).items() if value != parser.get_default(name)}, options)
    workers = _numbers(options.workers)
    if options.what == "network" and len(workers) < 2:
        raise UserError(f"--workers {options.workers}: one worker sends nothing: name more of them, as 1,2,4")
    modes = options.mode.split(",")
    for mode in modes:
        if mode not in MODES:
            raise UserError(f"--mode {options.mode}: {mode!r} should be one of {', '.join(MODES)}")
    launcher = _launcher(options)
    if workers[-1] > launcher.most and not options.only:  # the selected job may need fewer workers
        raise UserError(f"--workers {options.workers}: there is room for {launcher.most} ({launcher.words})")
    flags = list(argv[cut + 1 :])
    return Request(options, workers, modes, launcher, flags, _settings(options, workers, modes, flags))


_MAY_BE_LESS = ("time_every", "seconds", "to_perplexity")


def _refuse_unmeant(given: Set[str], options: argparse.Namespace) -> None:
    """Raise UserError for flags that would have no effect in this combination."""
    is_network, needs_slurm = options.what == "network", options.slurm_array or options.launcher == "srun"
    for names, means_nothing, instead in (
        (("seconds", "largest"), not is_network, "is of network: begin with `jobs/scale.py network`, or leave it out"),
        (("max_epochs",), not options.to_perplexity, "goes with --to-perplexity"),
        (("per_node", "sbatch"), not options.slurm_array, "goes with --slurm-array"),
        (("hosts", "hostfile", "interface"), needs_slurm, "is for horovodrun: Slurm knows its own nodes: leave it out"),
    ):
        for name in names:
            if means_nothing and name in given:
                flag = "-H" if name == "hosts" else f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} {getattr(options, name)}: {instead}")


def _numbers(text: str) -> List[int]:
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise UserError(f"--workers {text}: should be numbers from 1 on with commas between, as 1,2,4")
    numbers = sorted({int(number) for number in text.split(",")})
    if numbers[0] != 1:
        raise UserError(f"--workers {text}: should begin with 1, which the others are compared with")
    return numbers


def _settings(options: argparse.Namespace, workers: List[int], modes: List[str], flags: List[str]) -> RunConfig:
    """Parse the flags of jobs/train.py, and check that they leave alone the settings that the points determine."""
    settings, usual = parse_config(flags), parse_config([])
    for name, instead in _DECIDED.items():
        if getattr(settings, name) != getattr(usual, name):
            raise UserError(f"--{name.replace('_', '-')} behind --: is for the points to decide: {instead}")
    if "strong" in modes and workers[-1] > options.streams:
        raise UserError(
            f"--workers {options.workers}: {workers[-1]} workers are more than the {options.streams} --streams that "
            "strong scaling shares out: give more --streams, or --mode weak"
        )
    if options.warm_up >= options.epochs:
        raise UserError(f"--warm-up {options.warm_up}: leaves none of the {options.epochs} --epochs to be counted")
    if 0 < options.to_perplexity <= 1:
        raise UserError(f"--to-perplexity {options.to_perplexity:g}: should be more than 1, which is perfection")
    return settings


def _launcher(options: argparse.Namespace) -> Launcher:
    if options.launcher == "srun":
        return Srun.here()
    if options.slurm_array:
        return Srun(tasks=10**6, per_node=options.per_node)
    hosts = tuple(choose_hosts(options.hosts, options.hostfile))
    interface = parse_interface(options.interface) if options.interface else ""
    return Horovodrun(Workers(sum(host.slots for host in hosts), hosts, options.controller, interface))


def _parser(description: str) -> TeachingParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/scale.py", description=description, allow_abbrev=False, formatter_class=text)
    add = parser.add_argument
    add("what", nargs="?", default="training", metavar="training|network", help="what is measured (default training)")
    add("--workers", required=True, metavar="N,N", help="the numbers of workers, 1 among them, as 1,2,4")
    add("--mode", default="weak,strong", metavar="M,M", help="weak, strong, or both (the default)")
    add("--repeat", type=int, default=3, metavar="N", help="jobs of each point (default 3)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the rows are kept; all hosts have to see it")
    add("--dry-run", action="store_true", help="show the command of every job that there is to run, and run none")
    add("--only", metavar="NAME", help="of all jobs this one, by the name that its folder has")
    add("--retry-failed", action="store_true", help="measure points again that have failed")
    add("--allow-mixed", action="store_true", help="take rows of several commits or machines for one experiment")
    add("--timeline", type=Path, metavar="FILE", help="of a single point: have Horovod write its timeline there")
    add("--to-perplexity", type=float, default=0.0, metavar="P", help="also train every weak point down to this")
    add("--max-epochs", type=int, default=1000, metavar="N", help="and give up after so many epochs (default 1000)")
    add("--seconds", type=float, default=1.0, metavar="S", help="network: how long each size is measured (default 1)")
    add("--largest", type=int, default=64, metavar="MIB", help="network: the largest buffer, in MiB (default 64)")
    size = parser.add_argument_group("what a point is").add_argument
    size("--streams", type=int, default=32, metavar="B", help="of one worker alone (default 32)")
    size("--steps", type=int, default=50, metavar="N", help="in an epoch (default 50)")
    size("--epochs", type=int, default=5, metavar="N", help="of a job (default 5)")
    size("--warm-up", type=int, default=1, metavar="N", help="of them that are not counted (default 1)")
    size("--time-every", type=int, default=25, metavar="N", help="of so many steps one is taken apart (default 25)")
    size("--threads", type=int, default=1, metavar="N", help="OpenMP threads of a worker (default 1)")
    start = parser.add_argument_group("how workers are started").add_argument
    how = "horovodrun, or srun inside of a Slurm allocation"
    start("--launcher", choices=("horovodrun", "srun"), default="horovodrun", help=how)
    start("--controller", choices=("mpi", "gloo"), default="mpi", help="of horovodrun (default mpi)")
    start("-H", dest="hosts", metavar="HOST:N,...", help="on these hosts, the first filled first")
    start("--hostfile", metavar="FILE", help="the same, one a line")
    start("--interface", default="", metavar="IF", help="the network interface through which they talk")
    start("--slurm-array", action="store_true", help="as arrays of Slurm jobs, which this command waits for; stop it "
          "with Ctrl-C, and the same command collects their rows later")  # fmt: skip
    start("--per-node", type=int, default=1, metavar="N", help="--slurm-array: workers of a node (default 1)")
    start(
        "--sbatch", default="", metavar="FLAGS", help="--slurm-array: sbatch's, as '--gpus-per-node=4 --time=1:00:00'"
    )
    return parser
