"""Time allreduces of one buffer, from 1 KiB on, between the workers that a launcher starts; see allreduce_worker.py."""

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

import numpy as np

from lstm_dist.cluster.provenance import describe_process, describe_rank
from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.comm.world import World
from lstm_dist.run.watchdog import Watchdog

SMALLEST = 1024  # bytes
MIN_REPETITIONS, MAX_REPETITIONS = 4, 200  # per size


class Transport(NamedTuple):
    """The collectives of one communication path.

    Attributes:
        rank: rank of this worker.
        barrier: returns when all workers have arrived.
        prepare: returns a function that sums a buffer of this many bytes over all workers and blocks until done.
        gather: returns every worker's value, in rank order.
    """

    rank: int
    barrier: Callable[[], Any]
    prepare: Callable[[int], Callable[[], Any]]
    gather: Callable[[Any], List[Any]]


def horovod_transport(world: World) -> Transport:
    """Return the transport of World.average_, which averages the gradients of a step."""
    from mxnet import nd

    def prepare(size: int) -> Callable[[], Any]:
        array = nd.zeros(size // 4)
        array.wait_to_read()

        def allreduce() -> None:
            world.average_(array, f"buffer{size}")
            array.wait_to_read()

        return allreduce

    return Transport(
        rank=world.rank,
        barrier=lambda: world.sum([0.0], "barrier"),
        prepare=prepare,
        gather=lambda value: world.allgather_object(value, "times"),
    )


def mpi_transport() -> Transport:
    """Return the transport of plain MPI's Allreduce, without Horovod."""
    group = MpiGroup.join()
    mpi = group.comm

    def prepare(size: int) -> Callable[[], Any]:
        array, total = np.zeros(size // 4, dtype=np.float32), np.empty(size // 4, dtype=np.float32)
        return lambda: mpi.Allreduce(array, total)

    return Transport(group.rank, mpi.Barrier, prepare, lambda value: group.allgather_object(value, "times"))


def measure(transport: Transport, size: int, seconds: float) -> List[float]:
    """Return the seconds of every repetition, from the arrival of the last worker, averaged over the workers.

    The maximum would be biased: a worker that leaves the barrier first also waits for the one that leaves it last.
    """
    allreduce = transport.prepare(size)

    def once() -> float:
        transport.barrier()
        began = time.perf_counter()
        allreduce()
        return time.perf_counter() - began

    once()  # warm-up: a buffer's first call includes Horovod's full negotiation and page faults
    slowest = max(transport.gather(once()))
    times = [once() for _ in range(int(min(MAX_REPETITIONS, max(MIN_REPETITIONS, seconds / slowest))))]
    return [float(mean) for mean in np.mean(transport.gather(times), axis=0)]


class Measurement(NamedTuple):
    """What to measure: seconds per size, the sizes in bytes, and the output file."""

    seconds: float
    sizes: List[int]
    file: Path


def measure_all(transport: Transport, measurement: Measurement, watchdog: Watchdog, process: Dict[str, Any]) -> None:
    """Measure all sizes; rank 0 writes the times and the description of the processes."""
    ranks, rows = transport.gather(describe_rank("cpu")), []
    for number, size in enumerate(measurement.sizes, 1):
        rows.append({"bytes": size, "seconds": measure(transport, size, measurement.seconds)})
        watchdog.beat("step", number)
    if transport.rank == 0:
        measurement.file.write_text(json.dumps({**process, "ranks": ranks, "sizes": rows}), encoding="utf-8")


def main(path: str, file: str, seconds: str, largest: str) -> None:
    """Measure one path; the arguments are those of allreduce_worker.py's command line."""
    process = describe_process()
    doublings = (int(largest) * 2**20 // SMALLEST).bit_length()
    measurement = Measurement(float(seconds), [SMALLEST * 2**k for k in range(doublings)], Path(file))
    with Watchdog() as watchdog:
        if path == "mpi":
            measure_all(mpi_transport(), measurement, watchdog, process)
        else:
            with HorovodWorld.open() as world:
                measure_all(horovod_transport(world), measurement, watchdog, process)
