"""Examines the environment and, under a launcher, the world that it makes; says what is wrong and what to do.

    .venv/bin/python launch/doctor.py
    horovodrun -np 2 python launch/doctor.py
    srun --mpi=pmix .venv/bin/python launch/doctor.py

Every worker looks, rank 0 prints. The exit status is 1 if something would break a run, else 0.
"""

import argparse
import importlib
import os
import platform
import re
import socket
import subprocess
import sys
import warnings
from collections import defaultdict
from types import ModuleType
from typing import Dict, List, NamedTuple, Optional, Sequence

from lstm_dist.cluster import devices
from lstm_dist.cluster.cpu_affinity import pin_to_cores
from lstm_dist.cluster.cuda_libs import DRIVER
from lstm_dist.cluster.launch_env import Launch, detect

OK, WARN, FAIL = "ok", "warn", "FAIL"
COLOURS = {OK: "\033[32m", WARN: "\033[33m", FAIL: "\033[1;31m"}
SET_UP = "run launch/setup.sh, and start .venv/bin/python"
MXNET, HOROVOD = "1.9.1", "0.28.1"
# Of Open MPI, MPICH, Intel and Cray; not their companions for C++ and Fortran.
LIBMPI = re.compile(r"/lib(?:mpi|mpich|mpi_cray)\.so[.\d]*$")
FEATURES = ("CUDA", "CUDNN", "NCCL", "MKLDNN", "OPENMP", "BLAS_OPEN", "BLAS_MKL", "LAPACK", "F16C", "INT64_TENSOR_SIZE")


class Finding(NamedTuple):
    """One line of the report, and what to do about it."""

    mark: str
    topic: str
    text: str
    remedy: str = ""


class Facts(NamedTuple):
    """What one worker knows and the others do not."""

    rank: int
    host: str
    local_rank: int
    versions: str
    cores: Sequence[int]
    threads: int
    with_cuda: bool
    gpus: Sequence[devices.Gpu]


Findings = List[Finding]


def one_line(error: object) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def load(findings: Findings, name: str, topic: str) -> Optional[ModuleType]:
    """A module, or a finding that it cannot be imported."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)  # Horovod's, when it was compiled for another MXNet
            module = importlib.import_module(name)
    except Exception as error:  # the import of a compiled library can fail in any way
        remedy = "start on a node with GPUs, for which this environment is" if DRIVER in str(error) else SET_UP
        findings.append(Finding(FAIL, topic, f"import {name}: {type(error).__name__}: {one_line(error)}", remedy))
        return None
    findings.extend(
        Finding(WARN, topic, one_line(warning.message), SET_UP)
        for warning in caught
        if topic in str(warning.message).lower()
    )
    return module


def check_python(findings: Findings) -> None:
    """Its version, and what may hide the environment's packages."""
    text = f"{platform.python_version()}, {sys.executable}"
    if (3, 8) <= sys.version_info[:2] <= (3, 11):
        findings.append(Finding(OK, "python", text))
    else:
        findings.append(Finding(FAIL, "python", f"{text}: MXNet {MXNET} needs 3.8 to 3.11", SET_UP))
    path = os.environ.get("PYTHONPATH")
    if path:
        findings.append(
            Finding(WARN, "python", f"PYTHONPATH={path} comes before the environment's packages", "unset PYTHONPATH")
        )


def check_numpy(findings: Findings) -> None:
    """MXNet 1.9.1 uses names that numpy 1.24 removed."""
    numpy = load(findings, "numpy", "numpy")
    if numpy is None:
        return
    text = f"{numpy.__version__}, {os.path.dirname(numpy.__file__ or '?')}"
    if tuple(map(int, numpy.__version__.split(".")[:2])) < (1, 24):
        findings.append(Finding(OK, "numpy", text))
    else:
        findings.append(Finding(FAIL, "numpy", f"{text}: MXNet {MXNET} needs a numpy before 1.24", SET_UP))


def check_mxnet(findings: Findings) -> Optional[ModuleType]:
    """Its version and what it was built with."""
    mx = load(findings, "mxnet", "mxnet")
    if mx is None:
        return None
    built = mx.runtime.Features()
    having = [name for name in FEATURES if name in built and built.is_enabled(name)]
    text = f"{mx.__version__}, built with {' '.join(having)}"
    if mx.__version__ == MXNET:
        findings.append(Finding(OK, "mxnet", text))
    else:
        findings.append(Finding(WARN, "mxnet", f"{text}: the project is made for {MXNET}", SET_UP))
    return mx


def check_mpi4py(findings: Findings, initialize: bool) -> Optional[ModuleType]:
    """Its version and that of its MPI, which it starts if `initialize`: an MPI that cannot start ends the process."""
    mpi4py = load(findings, "mpi4py", "mpi4py")
    if mpi4py is None:
        return None
    mpi4py.rc.initialize = mpi4py.rc.finalize = initialize
    mpi = load(findings, "mpi4py.MPI", "mpi4py")
    if mpi is None:
        return None
    library = one_line(mpi.Get_library_version()).split(",")[0].strip("\0 ")
    findings.append(Finding(OK, "mpi4py", f"{mpi4py.__version__}, {library}"))
    return mpi


def check_horovod(findings: Findings, with_cuda: bool, controller: str) -> Optional[ModuleType]:
    """Its version, its controllers, and how it moves a GPU's memory."""
    hvd = load(findings, "horovod.mxnet", "horovod")
    if hvd is None:
        return None
    version = importlib.import_module("horovod").__version__
    built = [name for name in ("gloo", "mpi") if getattr(hvd, f"{name}_built")()]
    operations = [name for name in ("cuda", "nccl") if getattr(hvd, f"{name}_built")()]
    text = f"{version}, controllers {' '.join(built) or 'none'}, GPU operations {' '.join(operations) or 'none'}"
    if controller not in built:
        remedy = f"use a launcher for {' or '.join(built)}, or {SET_UP}" if built else SET_UP
        findings.append(Finding(FAIL, "horovod", f"{text}: it has no {controller}, which this launch needs", remedy))
        return None
    if version != HOROVOD:
        findings.append(Finding(WARN, "horovod", f"{text}: the project is made for {HOROVOD}", SET_UP))
    elif with_cuda and "nccl" not in operations:
        text += ": without nccl, gradients travel through the CPU's memory, which works and is slow"
        findings.append(Finding(WARN, "horovod", text, "launch/setup.sh --gpu, with nvcc of CUDA 11 on PATH"))
    else:
        findings.append(Finding(OK, "horovod", text))
    return hvd


def check_one_mpi(findings: Findings) -> None:
    """Horovod and mpi4py must have brought one and the same MPI library into this process."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps}
    libraries = sorted({os.path.realpath(path) for path in paths if LIBMPI.search(path)})
    if len(libraries) > 1:
        text = f"Horovod and mpi4py speak to different MPIs: {' and '.join(libraries)}"
        findings.append(Finding(FAIL, "MPI", text, "rm -r .venv, load the MPI that you want, and run launch/setup.sh"))
    elif libraries:
        findings.append(Finding(OK, "MPI", f"one for Horovod and mpi4py, {libraries[0]}"))


def check_singleton(findings: Findings) -> None:
    """Whether MPI starts without a launcher, which plain scripts with mpi4py need; in a process that may be ended."""
    command = [sys.executable, "-c", "from mpi4py import MPI"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if "error" in line.lower()] or run.stderr.splitlines()
        text = f"does not start without a launcher: {lines[0].strip(' *') if lines else f'status {run.returncode}'}"
        findings.append(Finding(WARN, "MPI", text, "a job without a launcher uses Gloo and runs; for mpirun, try it"))


def check_world(findings: Findings, launch: Launch, hvd: ModuleType, mpi: Optional[ModuleType]) -> None:
    """Whether Horovod, MPI and the launcher agree on who is there."""
    rank, size = hvd.rank(), hvd.size()
    started = f"{launch.name} started {launch.size} processes"
    remedy = (
        "start them by horovodrun, or by the mpirun of the MPI named above"
        if launch.name != "srun"
        else "use srun --mpi=pmix (srun --mpi=list shows what this Slurm has), or the mpirun of the MPI named above"
    )
    if launch.size > 1 and size == 1:
        findings.append(Finding(FAIL, "world", f"{started}, and each believes to be alone", remedy))
    elif launch.name != "none" and launch.size != size:
        findings.append(Finding(FAIL, "world", f"{started}, Horovod found {size}", remedy))
    elif mpi is not None and (mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size) != (rank, size):
        text = f"mpi4py is rank {mpi.COMM_WORLD.rank} of {mpi.COMM_WORLD.size}, Horovod {rank} of {size}"
        findings.append(Finding(FAIL, "world", text, SET_UP))
    else:
        by = "no launcher" if launch.name == "none" else launch.name
        controller = "mpi" if hvd.mpi_enabled() else "gloo"
        findings.append(Finding(OK, "world", f"{size} worker{'s' * (size > 1)}, {by}, over {controller}"))


def check_expected(findings: Findings, hvd: ModuleType, workers: Optional[int], controller: Optional[str]) -> None:
    """What the caller asked for by --workers and --controller."""
    if workers not in (None, hvd.size()):
        findings.append(Finding(FAIL, "world", f"there should be {workers} workers, Horovod found {hvd.size()}"))
    if controller and not getattr(hvd, f"{controller}_enabled")():
        findings.append(Finding(FAIL, "world", f"Horovod does not use {controller}, which it should"))


def check_allreduce(findings: Findings, mx: ModuleType, hvd: ModuleType) -> None:
    """A sum whose answer is known: rank r adds r + 1."""
    size = hvd.size()
    total = hvd.allreduce(mx.nd.array([hvd.rank() + 1]), op=hvd.Sum, name="doctor.sum").asscalar()
    expected = size * (size + 1) // 2
    text = f"the sum of 1 to {size} over all workers is {total:g}"
    if total == expected:
        findings.append(Finding(OK, "allreduce", text))
    else:
        findings.append(Finding(FAIL, "allreduce", f"{text}, it should be {expected}", SET_UP))


def check_alike(findings: Findings, world: Sequence[Facts]) -> None:
    """Whether every worker runs the same versions."""
    for other in world:
        if other.versions != world[0].versions:
            text = f"rank {other.rank} on {other.host} has {other.versions}, rank 0 has {world[0].versions}"
            findings.append(Finding(FAIL, "versions", text, "start the same .venv on every host"))
            return


def check_cores(findings: Findings, world: Sequence[Facts]) -> None:
    """Whether the threads of a host's workers have a core each."""
    hosts: Dict[str, List[Facts]] = defaultdict(list)
    for facts in world:
        hosts[facts.host].append(facts)
    for host, local in hosts.items():
        cores = len({core for facts in local for core in facts.cores})
        threads = sum(facts.threads for facts in local)
        text = f"{host}: {threads} threads of {len(local)} worker{'s' * (len(local) > 1)} on {cores} cores"
        pinned = next((facts for facts in local if facts.threads > len(facts.cores)), None)
        if threads > cores:
            remedy = "fewer workers" if len(local) > cores else f"OMP_NUM_THREADS={cores // len(local)}"
            findings.append(Finding(WARN, "cores", f"{text}: they wait for each other", remedy))
        elif pinned:
            own = len(pinned.cores)
            text += f", but the launcher binds the {pinned.threads} threads of rank {pinned.rank} to {own}"
            findings.append(Finding(WARN, "cores", text, f"mpirun --bind-to none, or OMP_NUM_THREADS={own}"))
        else:
            findings.append(Finding(OK, "cores", text))


def check_devices(findings: Findings, world: Sequence[Facts]) -> None:
    """Which worker computes where, and whether MXNet has code for that GPU."""
    on_cpu = [facts for facts in world if not (facts.with_cuda and facts.gpus)]
    if on_cpu:
        who = "every worker" if len(on_cpu) == len(world) else f"ranks {', '.join(str(facts.rank) for facts in on_cpu)}"
        findings.append(Finding(OK, "device", f"{who}: CPU"))
    hosts = {facts.host: facts for facts in on_cpu if facts.gpus}
    for host, facts in hosts.items():
        for gpu in facts.gpus:
            reason = devices.unsupported(gpu)
            text = f"{host}: {reason}" if reason else f"{host}: GPU {gpu.index}, {gpu.name}, {_capability(gpu)}"
            findings.append(Finding(WARN if reason else OK, "device", f"{text}; not used, this MXNet has no CUDA"))
    taken: Dict[object, int] = {}
    for facts in world:
        if facts in on_cpu:
            continue
        gpu = facts.gpus[facts.local_rank % len(facts.gpus)]
        where = f"rank {facts.rank}, local rank {facts.local_rank} on {facts.host}"
        reason = devices.unsupported(gpu)
        # Where the launcher gives each worker a GPU of its own, all of them are number 0.
        sharer = taken.setdefault((facts.host, gpu), facts.rank) if len(facts.gpus) > 1 else facts.rank
        if reason:
            findings.append(Finding(FAIL, "device", f"{where}: {reason}", "--device cpu, or a GPU of 2014 to 2022"))
        elif sharer != facts.rank:
            text = f"{where}: GPU {gpu.index}, {gpu.name}, {_capability(gpu)}, which rank {sharer} uses as well"
            findings.append(Finding(WARN, "device", text, "as many workers on a host as it has GPUs"))
        else:
            findings.append(Finding(OK, "device", f"{where}: GPU {gpu.index}, {gpu.name}, {_capability(gpu)}"))


def _capability(gpu: devices.Gpu) -> str:
    return "compute capability {}.{}".format(*gpu.capability)


def examine(launch: Launch, workers: Optional[int], controller: Optional[str]) -> Findings:
    """All findings of this worker; those that concern all workers are the same on each of them."""
    findings: Findings = []
    threads = pin_to_cores().threads  # as in a job, before MXNet is loaded
    # As in a job: MPI takes part only where a launcher connects the ranks through it.
    needed = "gloo" if launch.name in ("none", "horovodrun") else "mpi"
    os.environ.setdefault("HOROVOD_CONTROLLER", needed)
    os.environ.setdefault("HOROVOD_CPU_OPERATIONS", needed)

    check_python(findings)
    check_numpy(findings)
    if launch.name == "none":
        check_singleton(findings)
    mpi = check_mpi4py(findings, initialize=needed == "mpi")
    mx = check_mxnet(findings)
    with_cuda = bool(mx and mx.runtime.Features().is_enabled("CUDA"))
    hvd = check_horovod(findings, with_cuda, needed) if mx else None
    check_one_mpi(findings)
    if mx is None or hvd is None or (mpi is None and needed == "mpi"):
        return findings

    versions = ", ".join(f"{finding.topic} {finding.text.split(',')[0]}" for finding in findings if finding.mark == OK)
    hvd.init()
    check_world(findings, launch, hvd, mpi if needed == "mpi" else None)
    check_expected(findings, hvd, workers, controller)
    check_allreduce(findings, mx, hvd)
    cores = sorted(os.sched_getaffinity(0))
    facts = Facts(
        hvd.rank(), socket.gethostname(), launch.local_rank, versions, cores, threads, with_cuda, devices.visible_gpus()
    )
    world = hvd.allgather_object(facts, name="doctor.facts") if hvd.size() > 1 else [facts]
    check_alike(findings, world)
    check_cores(findings, world)
    check_devices(findings, world)
    hvd.shutdown()
    return findings


def report(findings: Findings) -> str:
    """The findings as aligned lines, in colour on a terminal."""
    lines = []
    for mark, topic, text, remedy in findings:
        shown = f"{mark:<4}"
        if sys.stdout.isatty():
            shown = f"{COLOURS[mark]}{shown}\033[0m"
        lines.append(f"{shown}  {topic:<9}  {text}")
        if remedy:
            lines.append(f"{'':17}-> {remedy}")
    counts = {mark: sum(finding.mark == mark for finding in findings) for mark in (FAIL, WARN)}
    lines.append(f"{counts[FAIL]} to repair, {counts[WARN]} to consider" if any(counts.values()) else "all is well")
    return "\n".join(lines)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Examine, let rank 0 print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--workers", type=int, metavar="N", help="fail unless there are N workers")
    parser.add_argument("--controller", choices=("gloo", "mpi"), help="fail unless Horovod uses this controller")
    options = parser.parse_args(arguments)

    launch = detect()
    findings = examine(launch, options.workers, options.controller)
    failed = any(finding.mark == FAIL for finding in findings)
    # A worker that fails before it could join the others speaks for itself.
    joined = any(finding.topic == "world" for finding in findings)
    if launch.rank == 0 or (failed and not joined):
        # One write: the pipes of several workers meet in one terminal.
        print(report(findings), flush=True)
    return int(failed)
