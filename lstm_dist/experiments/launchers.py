"""Commands that start the workers of a job: horovodrun on this machine or several hosts, srun in an allocation."""

import os
import sys
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_query import HostQuery, require_usable
from lstm_dist.cluster.hosts import Host
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.errors import UserError

TRAIN, SUPERVISE = ROOT / "jobs" / "train.py", ROOT / "launch" / "supervise.py"
UNLIMITED = 10**6  # workers


class Horovodrun(NamedTuple):
    """Launcher on this machine or on hosts, which are filled in order.

    Attributes:
        per_node: most workers on a host; by default, as many as its slots.
    """

    workers: Workers
    per_node: int = UNLIMITED

    @property
    def description(self) -> str:
        """Return the launcher and its hosts, for messages and reports."""
        hosts = ",".join(map(str, self.workers.hosts))
        return f"horovodrun --{self.workers.controller} on {hosts or 'this host'}"

    @property
    def max_workers(self) -> int:
        """Return the maximum number of workers."""
        return sum(min(host.slots, self.per_node) for host in self.workers.hosts) or UNLIMITED

    def varied(self, per_node: Optional[int], controller: Optional[str]) -> "Horovodrun":
        """Return the launcher with this number of workers per host and this controller, if they are given."""
        workers = self.workers._replace(controller=controller or self.workers.controller)
        return Horovodrun(workers, per_node or self.per_node)

    def require_usable(self) -> None:
        """Check that all hosts can be reached and have the same software as this one.

        Raises:
            UserError: naming the host, the problem and what to do.
        """
        if self.workers.hosts:
            require_usable(self.workers.hosts, HostQuery(TRAIN, self.workers.interface))

    def train_command(self, number: int, flags: Sequence[str]) -> List[str]:
        """Return the command of a training job."""
        workers = self.workers._replace(number=number, hosts=self._hosts(number))
        return [sys.executable, str(SUPERVISE), *workers.flags(), *flags]

    def program_command(self, number: int, program: Sequence[str], controller: str) -> List[str]:
        """Return the command of another program."""
        return Workers(number, self._hosts(number), controller, self.workers.interface).command(program)

    def _hosts(self, number: int) -> Tuple[Host, ...]:
        hosts = [host._replace(slots=min(host.slots, self.per_node)) for host in self.workers.hosts]
        return first_slots(hosts, number)

    def environment(self) -> Dict[str, str]:
        """Return the environment variables of either command."""
        return self.workers.environment()


class Srun(NamedTuple):
    """Launcher in a Slurm allocation, whose nodes are filled in order.

    Attributes:
        tasks: number of tasks in the allocation.
        per_node: most tasks on a node.
        mpi: value of srun's --mpi.
        nodes: number of nodes in the allocation.
    """

    tasks: int
    per_node: int
    mpi: str = os.environ.get("LSTM_DIST_MPI", "pmix")
    nodes: int = UNLIMITED

    @classmethod
    def current(cls) -> "Srun":
        """Return the launcher of the current allocation.

        Raises:
            UserError: if this process is not in a Slurm allocation.
        """
        if "SLURM_JOB_ID" not in os.environ:
            raise UserError("--launcher srun: not in a Slurm allocation: start it in a batch script, or under salloc")
        tasks = int(os.environ.get("SLURM_NTASKS", "1"))
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        return cls(tasks, max(1, tasks // nodes), nodes=nodes)

    @property
    def description(self) -> str:
        """Return the launcher and its hosts, for messages and reports."""
        return f"srun --mpi={self.mpi}"

    @property
    def max_workers(self) -> int:
        """Return the maximum number of workers."""
        return min(self.tasks, self.per_node * self.nodes)

    def varied(self, per_node: Optional[int], controller: Optional[str]) -> "Srun":  # noqa: ARG002 - as Horovodrun
        """Return the launcher with this number of workers per node, if it is given."""
        return self._replace(per_node=per_node or self.per_node)

    def require_usable(self) -> None:
        """Check nothing: Slurm starts a job on nodes that it can reach."""

    def train_command(self, number: int, flags: Sequence[str]) -> List[str]:
        """Return the command of a training job."""
        return self.program_command(number, [str(TRAIN), *flags], "mpi")

    def program_command(self, number: int, program: Sequence[str], controller: str) -> List[str]:  # noqa: ARG002 - as Horovodrun
        """Return the command of another program."""
        nodes = -(-number // self.per_node)
        cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        return [
            "srun", f"--mpi={self.mpi}", "--kill-on-bad-exit=1", f"--nodes={nodes}", f"--ntasks={number}",
            *([f"--ntasks-per-node={-(-number // nodes)}"] if self.per_node * self.nodes < self.tasks else []),
            f"--cpus-per-task={cores}", sys.executable, *program,
        ]  # fmt: skip

    def environment(self) -> Dict[str, str]:
        """Return the environment variables of either command."""
        return dict(os.environ)


Launcher = Union[Horovodrun, Srun]


def first_slots(hosts: Sequence[Host], number: int) -> Tuple[Host, ...]:
    """Return the first `number` slots of the hosts, in order."""
    taken: List[Host] = []
    for host in hosts:
        if number > 0:
            taken.append(host._replace(slots=min(host.slots, number)))
            number -= host.slots
    return tuple(taken)
