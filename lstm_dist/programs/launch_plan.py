"""What launch/local.sh and launch/cluster.sh are asked to start: their own flags, without those of jobs/train.py."""

import argparse
import re
import shlex
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.cluster.discovery import Discovery
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import workers_on
from lstm_dist.cluster.hosts import choose_hosts, parse_interface
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.errors import UserError
from lstm_dist.run.resume_command import resume_flags
from lstm_dist.train.config import RunConfig
from lstm_dist.train.interval import parse_seconds

TRAIN = ROOT / "jobs" / "train.py"
RESTARTS = 3  # default of a job that may continue on fewer workers
# Flags for hosts that are lost and return, with their defaults.
_HOST_FLAGS = {
    "--min-workers": None,
    "--wait-for-workers": "10m",
    "--discover-hosts": None,
    "--discover-every": "30s",
    "--grow-every": "2m",
}


class HostChanges(NamedTuple):
    """How a job on several hosts deals with hosts that are lost and return.

    Attributes:
        min_workers: the least number of workers to continue on; None for as many as were started.
        wait: seconds to wait for that many.
        discovery: what prints the hosts; None if they are given.
        look_every: seconds between two looks for hosts to continue on more workers.
        grow_every: the least number of seconds from a change of workers to a planned one.
    """

    min_workers: Optional[int] = None
    wait: float = 600.0
    discovery: Optional[Discovery] = None
    look_every: float = 30.0
    grow_every: float = 120.0

    @property
    def may_shrink(self) -> bool:
        """Return whether the number of workers may change."""
        return self.min_workers is not None or self.discovery is not None


class LaunchPlan(NamedTuple):
    """Which workers to start, and how often.

    Attributes:
        workers: and the hosts that they run on.
        max_restarts: the maximum number of restarts in a row without a new checkpoint.
        print_only: whether to print the command instead of running it.
        changes: how to deal with hosts that are lost and return.
        host_flags: the flags that say so, as they were given.
    """

    workers: Workers
    max_restarts: int
    print_only: bool
    changes: HostChanges = HostChanges()
    host_flags: Tuple[str, ...] = ()

    def command(self, flags: Sequence[str]) -> List[str]:
        """Return the command line of a job with these flags of jobs/train.py."""
        return self.workers.command([str(TRAIN), *flags])

    def resume_command(self, run_dir: Path) -> str:
        """Return the command with which a user resumes the job from the current directory."""
        script = ROOT / "launch" / ("cluster.sh" if self.workers.hosts else "local.sh")
        name = script.relative_to(ROOT) if Path.cwd() == ROOT else script
        workers = self.workers._replace(hosts=()) if self.changes.discovery else self.workers
        flags = workers.flags()[2:] if self.changes.discovery else workers.flags()
        return shlex.join([str(name), *flags, *self.host_flags, *resume_flags(run_dir)])

    def require_fixed_batch(self, settings: RunConfig) -> None:
        """Check that the batch, and so the trajectory, does not depend on the number of workers if that may change.

        Raises:
            UserError: if it does.
        """
        size, number = settings.batch_size_per_worker, self.workers.number
        is_fixed = self.changes.discovery is None and (self.changes.min_workers or number) >= number
        if size is not None and not is_fixed:
            flag = "--discover-hosts" if self.changes.discovery else "--min-workers"
            raise UserError(
                f"--batch-size-per-worker {size}: cannot be combined with {flag}, as the batch would change with the "
                f"workers: give --global-batch-size {size * number}"
            )


def parse(argv: Optional[Sequence[str]]) -> "tuple[LaunchPlan, List[str]]":
    """Parse the launcher's own flags, and return those of jobs/train.py beside them.

    Raises:
        UserError: naming the flag.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # launch/local.sh --help is the help
    parser.add_argument("-n", nargs="?", const="")
    parser.add_argument("-H", dest="hosts", nargs="?", const="")
    parser.add_argument("--hostfile", nargs="?", const="")
    parser.add_argument("--interface", default="", nargs="?")
    for name in ("gloo", "mpi"):
        parser.add_argument(f"--{name}", dest="controllers", action="append_const", const=name, default=[])
    parser.add_argument("--max-restarts", nargs="?", const="")
    for flag in _HOST_FLAGS:
        parser.add_argument(flag, nargs="?", const="")
    parser.add_argument("--print", dest="print_only", action="store_true")
    given, train_flags = parser.parse_known_args(argv)
    if len(set(given.controllers)) > 1:
        raise UserError("--mpi: cannot be combined with --gloo: leave one of them out")
    workers = _parse_workers(given, train_flags)
    host_flags = {flag: getattr(given, flag[2:].replace("-", "_")) for flag in _HOST_FLAGS}
    known = {flag: value for flag, value in host_flags.items() if value is not None}
    if known and not workers.hosts:
        raise UserError(f"{next(iter(known))}: is for several hosts: give -H or --hostfile as well, or leave it out")
    changes = _parse_changes({**_HOST_FLAGS, **known}, workers.number)
    restarts = str(RESTARTS if changes.may_shrink else 0) if given.max_restarts is None else given.max_restarts
    if not re.fullmatch(r"[0-9]{1,6}", restarts):
        raise UserError(f"--max-restarts '{restarts}': should be a whole number from 0 to 999999")
    words = tuple(word for item in known.items() for word in item)
    return LaunchPlan(workers, int(restarts), given.print_only, changes, words), train_flags


def _parse_workers(given: argparse.Namespace, train_flags: Sequence[str]) -> Workers:
    """Return the workers to start with, on the given or discovered hosts or on this machine.

    Raises:
        UserError: naming the flag.
    """
    values = {"-H": given.hosts, "--hostfile": given.hostfile, "--discover-hosts": given.discover_hosts}
    sources = [flag for flag, value in values.items() if value is not None]
    if given.n is not None and sources:
        raise UserError(f"-n: cannot be combined with {sources[0]}, which gives the numbers of workers: leave it out")
    if given.discover_hosts is not None and len(sources) > 1:
        raise UserError(f"--discover-hosts: cannot be combined with {sources[0]}: give only one of them")
    number = "2" if given.n is None else given.n
    if number.startswith("p"):  # -np 4, -np4 or -np=4, as horovodrun and mpirun take it
        wanted = next((word for word in [number.lstrip("p="), *train_flags] if word.isdigit()), "2")
        raise UserError(f"-np: the number of workers is given as -n {wanted}")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise UserError(f"-n '{number}': should be a number of workers from 1 to 9999")
    interface = parse_interface(given.interface or "") if given.interface != "" else ""
    if given.discover_hosts is not None:
        hosts = Discovery(given.discover_hosts).hosts()
    else:
        hosts = choose_hosts(given.hosts, given.hostfile)
    return Workers(workers_on(hosts) or int(number), tuple(hosts), (given.controllers or ["gloo"])[0], interface)


def _parse_changes(flags: "dict[str, Optional[str]]", workers: int) -> HostChanges:
    """Return how to deal with hosts that are lost and return, given the values of _HOST_FLAGS.

    Raises:
        UserError: naming the flag.
    """
    least, program = flags["--min-workers"], flags["--discover-hosts"]
    if least is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", least):
        raise UserError(f"--min-workers '{least}': should be a number of workers from 1 to 9999")
    if least is not None and int(least) > workers:
        raise UserError(f"--min-workers {least}: the hosts have {workers} workers: give at most that many")
    wait, look, grow = (
        _parse_time(flag, flags[flag] or "") for flag in ("--wait-for-workers", "--discover-every", "--grow-every")
    )
    discovery = None if program is None else Discovery(program)
    return HostChanges(None if least is None else int(least), wait, discovery, look, grow)


def _parse_time(flag: str, text: str) -> float:
    """Return the seconds of a time; raise UserError naming the flag for anything else."""
    seconds = parse_seconds(text)
    if not seconds:
        raise UserError(f"{flag} '{text}': should be a time, such as 30s, 10m or 2h")
    return seconds
