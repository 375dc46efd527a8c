"""Check the environment and, under a launcher, the workers that it starts; report what is wrong and what to do.

    .venv/bin/python launch/doctor.py
    horovodrun -np 2 python launch/doctor.py
    srun --mpi=pmix .venv/bin/python launch/doctor.py

Every worker runs the checks, rank 0 prints the report. The exit status is 1 if something would break a run, else 0.
"""

import argparse
import os
import socket
from typing import Optional, Sequence

from lstm_dist.cluster import devices
from lstm_dist.cluster.cpu_affinity import pin_to_cores
from lstm_dist.cluster.launch_env import LOOPBACK, detect, is_single
from lstm_dist.cluster.openblas import named_kernel
from lstm_dist.diagnosis import installation, products, workers
from lstm_dist.diagnosis.report import FAIL, CheckReport


def examine(expected_workers: Optional[int], expected_controller: Optional[str]) -> CheckReport:
    """Run all checks that the state of the environment allows.

    Returns:
        The report of this worker; results that concern all workers are the same on each of them.
    """
    report = CheckReport()
    workers.check_launcher(report)
    workers.check_loopback(report)
    if report.count(FAIL):
        return report
    launch = detect()
    threads = pin_to_cores().threads  # as in a job, before MXNet is loaded
    # As in a job: MPI takes part only if a launcher connects several ranks through it.
    needed = "gloo" if is_single() or launch.name == "horovodrun" else "mpi"
    if is_single():  # a job would not start Horovod, so nothing is lost by connecting it to this machine alone
        os.environ.update(HOROVOD_CONTROLLER=needed, HOROVOD_CPU_OPERATIONS=needed, HOROVOD_GLOO_IFACE=LOOPBACK)
    os.environ.setdefault("HOROVOD_CONTROLLER", needed)
    os.environ.setdefault("HOROVOD_CPU_OPERATIONS", needed)

    installation.check_python(report)
    installation.check_numpy(report)
    if launch.name == "none":
        installation.check_singleton(report)
    mpi = installation.check_mpi4py(report, initialize=needed == "mpi")
    with named_kernel():
        mx = installation.check_mxnet(report)
    with_cuda = bool(mx and mx.runtime.Features().is_enabled("CUDA"))
    hvd = installation.check_horovod(report, with_cuda, needed) if mx else None
    installation.check_one_mpi(report)
    if mx is None or hvd is None or (mpi is None and needed == "mpi"):
        return report

    versions = report.versions()
    products.check_speed(report, mx)
    hvd.init()
    used_mpi = mpi if needed == "mpi" else None
    workers.check_world(report, launch, hvd, used_mpi)
    workers.check_expected(report, hvd, expected_workers, expected_controller)
    workers.check_allreduce(report, mx, hvd)
    facts = workers.RankFacts(
        rank=hvd.rank(),
        host=socket.gethostname(),
        local_rank=launch.local_rank,
        versions=versions,
        cores=sorted(os.sched_getaffinity(0)),
        threads=threads,
        with_cuda=with_cuda,
        gpus=devices.visible_gpus(),
    )
    world = workers.gather_facts(facts, hvd, used_mpi)
    workers.check_versions(report, world)
    workers.check_cores(report, world)
    workers.check_devices(report, world)
    hvd.shutdown()
    return report


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the checks, let rank 0 print the report, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--workers", type=int, metavar="N", help="fail unless there are N workers")
    parser.add_argument("--controller", choices=("gloo", "mpi"), help="fail unless Horovod uses this controller")
    given = parser.parse_args(argv)

    report = examine(given.workers, given.controller)
    has_failed = report.count(FAIL) > 0
    # A worker that fails before it can join the others reports for itself.
    has_joined = any(result.topic == "world" for result in report.results)
    if detect().rank == 0 or (has_failed and not has_joined):
        print(report.render(), flush=True)  # in one write, because workers share the terminal
    return int(has_failed)
