"""What launch/local.sh and launch/cluster.sh are asked to start: their own flags, without those of jobs/train.py."""

import argparse
import re
import shlex
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import choose_hosts, parse_interface
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.errors import UserError
from lstm_dist.run.resume_command import resume_flags

TRAIN = ROOT / "jobs" / "train.py"


class LaunchPlan(NamedTuple):
    """Which workers to start, and how often.

    Attributes:
        workers: and the hosts that they run on.
        max_restarts: the maximum number of restarts in a row without a new checkpoint.
        print_only: whether to print the command instead of running it.
    """

    workers: Workers
    max_restarts: int
    print_only: bool

    def command(self, flags: Sequence[str]) -> List[str]:
        """Return the command line of a job with these flags of jobs/train.py."""
        return self.workers.command([str(TRAIN), *flags])

    def resume_command(self, run_dir: Path) -> str:
        """Return the command with which a user resumes the job from the current directory."""
        script = ROOT / "launch" / ("cluster.sh" if self.workers.hosts else "local.sh")
        name = script.relative_to(ROOT) if Path.cwd() == ROOT else script
        return shlex.join([str(name), *self.workers.flags(), *resume_flags(run_dir)])


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
    parser.add_argument("--max-restarts", default="0", nargs="?")
    parser.add_argument("--print", dest="print_only", action="store_true")
    given, train_flags = parser.parse_known_args(argv)
    if len(set(given.controllers)) > 1:
        raise UserError("--mpi: cannot be combined with --gloo: leave one of them out")
    if given.n is not None and (given.hosts is not None or given.hostfile is not None):
        raise UserError("-n: cannot be combined with -H or --hostfile, which give the numbers of workers: leave it out")
    number = "2" if given.n is None else given.n
    if number.startswith("p"):  # -np 4, -np4 or -np=4, as horovodrun and mpirun take it
        wanted = next((word for word in [number.lstrip("p="), *train_flags] if word.isdigit()), "2")
        raise UserError(f"-np: the number of workers is given as -n {wanted}")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise UserError(f"-n '{number}': should be a number of workers from 1 to 9999")
    if not re.fullmatch(r"[0-9]{1,6}", given.max_restarts or ""):
        raise UserError(f"--max-restarts '{given.max_restarts or ''}': should be a whole number from 0 to 999999")
    hosts = choose_hosts(given.hosts, given.hostfile)
    interface = parse_interface(given.interface or "") if given.interface != "" else ""
    count = sum(host.slots for host in hosts) or int(number)
    workers = Workers(count, tuple(hosts), (given.controllers or ["gloo"])[0], interface)
    return LaunchPlan(workers, int(given.max_restarts), given.print_only), train_flags
