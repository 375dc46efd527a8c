"""Checks of the workers of a job: whether they find each other, are alike, and have a core and a device each."""

import dataclasses
import os
import socket
from collections import defaultdict
from types import ModuleType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from lstm_dist.cluster.devices import Gpu, unsupported
from lstm_dist.cluster.launch_env import LOOPBACK, Launch
from lstm_dist.cluster.leftovers import drop_leftovers
from lstm_dist.diagnosis.report import SET_UP, CheckReport
from lstm_dist.errors import UserError

_CONNECT = 5.0  # seconds


class RankFacts(NamedTuple):
    """What one worker knows and the others do not.

    Attributes:
        rank, local_rank: of the worker.
        host: its name.
        versions: of the packages.
        cores: that it may use.
        threads: OpenMP threads.
        with_cuda: whether its MXNet was built with CUDA.
        gpus: that it sees.
    """

    rank: int
    host: str
    local_rank: int
    versions: str
    cores: Sequence[int]
    threads: int
    with_cuda: bool
    gpus: Sequence[Gpu]

    def to_json(self) -> Dict[str, Any]:
        """Return the facts as values that JSON can represent."""
        return {**self._asdict(), "gpus": [dataclasses.asdict(gpu) for gpu in self.gpus]}

    @classmethod
    def from_json(cls, facts: Dict[str, Any]) -> "RankFacts":
        """Return the facts from the values of `to_json`."""
        gpus = [Gpu(**{**gpu, "capability": tuple(gpu["capability"])}) for gpu in facts["gpus"]]
        return cls(**{**facts, "gpus": gpus})


def check_launcher(report: CheckReport) -> None:
    """Check that the environment is not that of one of several workers whose launcher has ended."""
    try:
        drop_leftovers(os.environ)
    except UserError as error:
        report.fail("launcher", str(error))


def check_loopback(report: CheckReport) -> None:
    """Check that processes of this machine can connect to each other, without which Horovod ends this process."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), _CONNECT).close()
    except OSError as error:
        text = f"this machine cannot connect to itself, 127.0.0.1 ({error.strerror})"
        report.fail("loopback", text, f"ip link set {LOOPBACK} up")


def gather_facts(mine: RankFacts, hvd: ModuleType, mpi: Optional[ModuleType]) -> List[RankFacts]:
    """Return the facts of all workers, in rank order, on each of them."""
    # It imports numpy, which may be missing when this module is loaded.
    from lstm_dist.comm.horovod_group import HorovodWorld

    gathered = HorovodWorld(hvd, mpi).allgather_object(mine.to_json(), "doctor.facts")
    return [RankFacts.from_json(facts) for facts in gathered]


def check_world(report: CheckReport, launch: Launch, hvd: ModuleType, mpi: Optional[ModuleType]) -> None:
    """Check that Horovod, MPI and the launcher agree on rank and size."""
    rank, size = hvd.rank(), hvd.size()
    started = f"{launch.name} started {launch.size} processes"
    remedy = "use horovodrun, or the mpirun of the MPI named above"
    if launch.name == "srun":
        remedy = (
            "use srun --mpi=pmix (srun --mpi=list shows what this Slurm supports), or the mpirun of the MPI named above"
        )
    if launch.size > 1 and size == 1:
        report.fail("world", f"{started}, but each runs as an independent job of one worker", remedy)
    elif launch.name != "none" and launch.size != size:
        report.fail("world", f"{started}, Horovod found {size}", remedy)
    elif mpi is not None and (mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size) != (rank, size):
        text = f"mpi4py is rank {mpi.COMM_WORLD.rank} of {mpi.COMM_WORLD.size}, Horovod {rank} of {size}"
        report.fail("world", text, SET_UP)
    else:
        launcher = "no launcher" if launch.name == "none" else launch.name
        controller = "mpi" if hvd.mpi_enabled() else "gloo"
        report.ok("world", f"{_workers(size)}, {launcher}, over {controller}")


def check_expected(report: CheckReport, hvd: ModuleType, workers: Optional[int], controller: Optional[str]) -> None:
    """Check what the caller expects by --workers and --controller."""
    if workers not in (None, hvd.size()):
        report.fail("world", f"--workers {workers}: Horovod found {hvd.size()}")
    if controller and not getattr(hvd, f"{controller}_enabled")():
        report.fail("world", f"--controller {controller}: Horovod does not use it")


def check_allreduce(report: CheckReport, mx: ModuleType, hvd: ModuleType) -> None:
    """Check a sum to which rank r contributes r + 1."""
    size = hvd.size()
    total = hvd.allreduce(mx.nd.array([hvd.rank() + 1]), op=hvd.Sum, name="doctor.sum").asscalar()
    expected = size * (size + 1) // 2
    text = f"the sum of 1 to {size} over all workers is {total:g}"
    if total == expected:
        report.ok("allreduce", text)
    else:
        report.fail("allreduce", f"{text}, it should be {expected}", SET_UP)


def check_versions(report: CheckReport, world: Sequence[RankFacts]) -> None:
    """Check that all workers have the same versions."""
    for other in world:
        if other.versions != world[0].versions:
            text = f"rank {other.rank} on {other.host} has {other.versions}, rank 0 has {world[0].versions}"
            report.fail("versions", text, "start the same .venv on every host")
            return


def check_cores(report: CheckReport, world: Sequence[RankFacts]) -> None:
    """Check that the threads of a host's workers have a core each."""
    hosts: Dict[str, List[RankFacts]] = defaultdict(list)
    for facts in world:
        hosts[facts.host].append(facts)
    for host, local in hosts.items():
        cores = len({core for facts in local for core in facts.cores})
        threads = sum(facts.threads for facts in local)
        text = f"{host}: {threads} threads of {_workers(len(local))} on {cores} cores"
        pinned = next((facts for facts in local if facts.threads > len(facts.cores)), None)
        if threads > cores:
            fewer = "start fewer workers"
            remedy = fewer if len(local) > cores else f"set OMP_NUM_THREADS={cores // len(local)}"
            report.warn("cores", f"{text}: oversubscribed, the threads wait for each other", remedy)
        elif pinned:
            own = len(pinned.cores)
            text += f", but the launcher binds the {pinned.threads} threads of rank {pinned.rank} to {own}"
            report.warn("cores", text, f"use mpirun --bind-to none, or set OMP_NUM_THREADS={own}")
        else:
            report.ok("cores", text)


def check_devices(report: CheckReport, world: Sequence[RankFacts]) -> None:
    """Report the device of each worker, and check that the kernels can run on it."""
    on_cpu = [facts for facts in world if not (facts.with_cuda and facts.gpus)]
    if on_cpu:
        everyone = len(on_cpu) == len(world)
        ranks = "every worker" if everyone else f"ranks {', '.join(str(facts.rank) for facts in on_cpu)}"
        report.ok("device", f"{ranks}: CPU")
    _check_unused_gpus(report, on_cpu)
    _check_used_gpus(report, [facts for facts in world if facts not in on_cpu])


def _check_unused_gpus(report: CheckReport, on_cpu: Sequence[RankFacts]) -> None:
    """Report the GPUs that are visible to an MXNet without CUDA."""
    hosts = {facts.host: facts for facts in on_cpu if facts.gpus}
    for host, facts in hosts.items():
        for gpu in facts.gpus:
            refusal = unsupported(gpu)
            text = refusal.reason if refusal else _describe(gpu)
            text = f"{host}: {text}; not used, because this MXNet was built without CUDA"
            if refusal:
                report.warn("device", text)
            else:
                report.ok("device", text)


def _check_used_gpus(report: CheckReport, on_gpu: Sequence[RankFacts]) -> None:
    """Check that each worker has a supported GPU of its own."""
    users: Dict[object, int] = {}
    for facts in on_gpu:
        gpu = facts.gpus[facts.local_rank % len(facts.gpus)]
        worker = f"rank {facts.rank}, local rank {facts.local_rank} on {facts.host}"
        refusal = unsupported(gpu)
        # If the launcher gives each worker a GPU of its own, all of them have number 0.
        user = users.setdefault((facts.host, gpu), facts.rank) if len(facts.gpus) > 1 else facts.rank
        if refusal:
            report.fail("device", f"{worker}: {refusal.reason}", refusal.remedy)
        elif user != facts.rank:
            text = f"{worker}: {_describe(gpu)}, which rank {user} uses as well"
            report.warn("device", text, "start at most as many workers on a host as it has GPUs")
        else:
            report.ok("device", f"{worker}: {_describe(gpu)}")


def _describe(gpu: Gpu) -> str:
    return "GPU {}, {}, compute capability {}.{}".format(gpu.index, gpu.name, *gpu.capability)


def _workers(number: int) -> str:
    return f"{number} worker{'s' * (number > 1)}"
