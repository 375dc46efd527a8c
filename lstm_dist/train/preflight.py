"""Checks before the first step that need all workers: equal configurations, own GPUs, a shared run directory."""

import os
import socket
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

import mxnet as mx

from lstm_dist.cluster import cpu_affinity, devices, openblas
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.comm.world import World
from lstm_dist.errors import ExitStatus
from lstm_dist.run.run_dir import create_probe, is_visible, remove_probe
from lstm_dist.train.setup import Job


def require_agreement(job: Job, world: World, software: Mapping[str, str]) -> None:
    """Check that every rank has the same configuration, text and program.

    Args:
        job: what is trained.
        world: all workers.
        software: the versions of packages and the digest of the code, by name.

    Raises:
        CollectiveError: naming the ranks and the differences.
    """
    same = {
        "corpus": job.text.digest,
        "vocabulary": job.text.vocabulary.characters,
        "device": job.model.ctx.device_type,
        "NCCL": str(world.has_nccl),
    }
    if job.model.ctx.device_type == "cpu":  # the thread count changes summation order, and thus weights
        same["OMP_NUM_THREADS"] = str(cpu_affinity.openmp_threads())
        same[openblas.VARIABLE] = openblas.rounding_kernel()  # every rank clips and updates its own copy of the weights
    world.require_equal({**job.settings.facts(), **same, **software}, "start")


def inspect_run(job: Job, run_dir: Path, world: World) -> List[str]:
    """Check devices and run directory on all workers, and return warnings.

    Raises:
        CollectiveError: if the job cannot run with them.
    """
    return [*filter(None, (inspect_gpus(job.model.ctx, world), _inspect_run_dir(run_dir, world)))]


def inspect_gpus(ctx: mx.Context, world: World) -> str:
    """Check whether every worker has its own GPU, and do without NCCL if not, because NCCL refuses to share one.

    Returns:
        A warning if workers share a GPU, else an empty string.
    """
    users: Dict[Tuple[str, str], List[str]] = defaultdict(list)
    for rank, (host, gpu) in enumerate(world.allgather_object([socket.gethostname(), devices.identity(ctx)], "gpus")):
        users[host, gpu].append(str(rank))
    for (host, gpu), ranks in users.items():
        if gpu and len(ranks) > 1:
            warning = f"warning: ranks {' and '.join(ranks)} on {host} compute on one GPU, {gpu}"
            if not world.has_nccl:
                return f"{warning}: each has a share of its speed"
            world.use_host_memory()
            return (
                f"{warning}: each has a share of its speed, and the gradients of all ranks pass through host memory, "
                "because NCCL needs a GPU for each rank"
            )
    return ""


def _inspect_run_dir(run_dir: Path, world: World) -> str:
    """Check that every host sees the run directory; otherwise the causes of failures there are lost.

    Under Slurm an invisible directory is an error, because the job may be resumed on any host.

    Returns:
        A warning if some hosts do not see it, else an empty string.
    """
    if world.is_one_host:
        return ""
    created = world.run_on_root(lambda: create_probe(run_dir), "probe")
    probe = world.broadcast_object(str(created.path) if created else "", "probe_path")
    unseen_by = "" if is_visible(Path(probe)) else socket.gethostname()
    hosts: List[str] = sorted(set(filter(None, world.allgather_object(unseen_by, "seen"))))
    if created:
        remove_probe(created)
    if not hosts:
        return ""
    message = (
        f"--run-dir {run_dir}: {', '.join(hosts)} cannot see it: give a folder on a file system that all nodes share"
    )
    if world.broadcast_object("SLURM_JOB_ID" in os.environ, "slurm"):
        raise CollectiveError(message, ExitStatus.CANNOT_CREATE)
    return f"warning: {message}; otherwise errors/ lacks failures there, and --resume needs the same first host"
