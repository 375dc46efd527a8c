"""Launch the workers of a point with horovodrun, here or on several hosts, or with srun in a Slurm allocation."""

import os
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

from lstm_dist.cluster.horovodrun import Workers, environment
from lstm_dist.cluster.hosts import Host
from lstm_dist.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TRAIN, SUPERVISE = ROOT / "jobs" / "train.py", ROOT / "launch" / "supervise.py"


class Horovodrun(NamedTuple):
    """Launcher on this machine or on `hosts`, which are filled in order."""

    workers: Workers

    @property
    def words(self) -> str:
        """Human-readable description."""
        hosts = ",".join(map(str, self.workers.hosts))
        return f"horovodrun --{self.workers.controller} on {hosts or 'this host'}"

    @property
    def most(self) -> int:
        """The maximum number of workers."""
        return sum(host.slots for host in self.workers.hosts) or 10**6

    def training(self, number: int, flags: Sequence[str]) -> List[str]:
        """Return the command of a training job."""
        _, hosts, controller, interface = self.workers
        where = ["-n", str(number)]
        if hosts:
            where = ["-H", ",".join(map(str, first(hosts, number)))]
        through = ["--interface", interface] if interface else []
        return [sys.executable, str(SUPERVISE), *where, *through, f"--{controller}", *flags]

    def program(self, number: int, program: Sequence[str], controller: str) -> List[str]:
        """Return the command of another program."""
        hosts = first(self.workers.hosts, number)
        return Workers(number, hosts, controller, self.workers.interface).command(program)

    def environment(self) -> Dict[str, str]:
        """Return the environment variables of either command."""
        return environment(*(host.name for host in self.workers.hosts[:1]))


class Srun(NamedTuple):
    """Launcher in a Slurm allocation, whose nodes are filled in order.

    Attributes:
        tasks: number of tasks in the allocation.
        per_node: tasks per node.
        mpi: value of srun's --mpi.
    """

    tasks: int
    per_node: int
    mpi: str = os.environ.get("LSTM_DIST_MPI", "pmix")

    @classmethod
    def here(cls) -> "Srun":
        """Return the launcher of the current allocation.

        Raises:
            UserError: if this process is not in a Slurm allocation.
        """
        if "SLURM_JOB_ID" not in os.environ:
            raise UserError("--launcher srun: this is no Slurm allocation: start it in a batch script, or under salloc")
        tasks = int(os.environ.get("SLURM_NTASKS", "1"))
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        return cls(tasks, max(1, tasks // nodes))

    @property
    def words(self) -> str:
        """Human-readable description."""
        return f"srun --mpi={self.mpi}"

    @property
    def most(self) -> int:
        """The maximum number of workers."""
        return self.tasks

    def training(self, number: int, flags: Sequence[str]) -> List[str]:
        """Return the command of a training job."""
        return self.program(number, [str(TRAIN), *flags], "mpi")

    def program(self, number: int, program: Sequence[str], controller: str) -> List[str]:  # noqa: ARG002 - one interface
        """Return the command of another program."""
        nodes = -(-number // self.per_node)
        cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        return [
            "srun", f"--mpi={self.mpi}", "--kill-on-bad-exit=1", f"--nodes={nodes}", f"--ntasks={number}",
            f"--cpus-per-task={cores}", sys.executable, *program,
        ]  # fmt: skip

    def environment(self) -> Dict[str, str]:
        """Return the environment variables of either command."""
        return dict(os.environ)


Launcher = Union[Horovodrun, Srun]


def first(hosts: Sequence[Host], number: int) -> Tuple[Host, ...]:
    """Return the first `number` slots of the hosts, in order."""
    taken: List[Host] = []
    for host in hosts:
        if number > 0:
            taken.append(host._replace(slots=min(host.slots, number)))
            number -= host.slots
    return tuple(taken)
