"""Time the allreduce of one buffer, from 1 KiB on, between the workers that a launcher starts.

python -m lstm_dist.scaling.allreduce_worker PATH FILE SECONDS MIB

PATH is horovod-mpi, horovod-gloo or mpi; SECONDS is the measuring time per size, MIB the largest size.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

import numpy as np

from lstm_dist.cluster.cpu_affinity import pin_to_cores
from lstm_dist.cluster.provenance import describe_process, describe_rank
from lstm_dist.comm.horovod_group import World
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.errors import one_line_errors
from lstm_dist.run.watchdog import Watchdog

SMALLEST = 1024  # bytes
FEWEST, MOST = 4, 200  # repetitions per size


class Way(NamedTuple):
    """A communication path.

    Attributes:
        rank: rank of this worker.
        meet: barrier, returns when all workers have arrived.
        prepare: returns a function that sums a buffer of this many bytes over all workers and blocks until done.
        collect: gathers every worker's text, in rank order.
    """

    rank: int
    meet: Callable[[], Any]
    prepare: Callable[[int], Callable[[], Any]]
    collect: Callable[[str], List[str]]


def through_horovod(world: World) -> Way:
    """Return the path of World.average_, which averages the gradients of a step."""
    from mxnet import nd

    def prepare(size: int) -> Callable[[], Any]:
        array = nd.zeros(size // 4)
        array.wait_to_read()

        def send() -> None:
            world.average_(array, f"buffer{size}")
            array.wait_to_read()

        return send

    return Way(
        world.rank, lambda: world.sum([0.0], "barrier"), prepare, lambda text: world.allgather_object(text, "times")
    )


def through_mpi() -> Way:
    """Return the path of plain MPI's Allreduce, without Horovod."""
    mpi = MpiGroup.open().comm

    def prepare(size: int) -> Callable[[], Any]:
        array, total = np.zeros(size // 4, dtype=np.float32), np.empty(size // 4, dtype=np.float32)
        return lambda: mpi.Allreduce(array, total)

    return Way(mpi.Get_rank(), mpi.Barrier, prepare, mpi.allgather)


def measure(way: Way, size: int, seconds: float) -> List[float]:
    """Return the seconds of every repetition, from the arrival of the last worker, averaged over the workers.

    The maximum would be biased: a worker that leaves the barrier first also waits for the one that leaves it last.
    """
    send = way.prepare(size)

    def once() -> float:
        way.meet()
        began = time.perf_counter()
        send()
        return time.perf_counter() - began

    once()  # warm-up: a buffer's first call includes Horovod's full negotiation and page faults
    slowest = max(float(text) for text in way.collect(str(once())))
    times = [once() for _ in range(int(min(MOST, max(FEWEST, seconds / slowest))))]
    everybodys = [json.loads(text) for text in way.collect(json.dumps(times))]
    return [float(mean) for mean in np.mean(everybodys, axis=0)]


class Plan(NamedTuple):
    """What to measure: seconds per size, the sizes, and the output file."""

    seconds: float
    sizes: List[int]
    file: Path


def measure_all(way: Way, plan: Plan, watchdog: Watchdog, process: Dict[str, Any]) -> None:
    """Measure all sizes; rank 0 writes the times and the description of the processes."""
    ranks, rows = [json.loads(text) for text in way.collect(json.dumps(describe_rank("cpu")))], []
    for number, size in enumerate(plan.sizes, 1):
        rows.append({"bytes": size, "seconds": measure(way, size, plan.seconds)})
        watchdog.beat("step", number)
    if way.rank == 0:
        plan.file.write_text(json.dumps({**process, "ranks": ranks, "sizes": rows}), encoding="utf-8")


def main(path: str, file: str, seconds: str, largest: str) -> None:
    """Measure one path."""
    pin_to_cores()  # must precede the import of MXNet
    process = describe_process()
    doublings = (int(largest) * 2**20 // SMALLEST).bit_length()
    plan = Plan(float(seconds), [SMALLEST * 2**k for k in range(doublings)], Path(file))
    with Watchdog() as watchdog:
        if path == "mpi":
            measure_all(through_mpi(), plan, watchdog, process)
        else:
            with World.open() as world:
                measure_all(through_horovod(world), plan, watchdog, process)


if __name__ == "__main__":
    with one_line_errors():
        main(*sys.argv[1:])
