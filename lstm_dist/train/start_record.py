"""What is known of a start of a job: its software, its workers and their hosts; recorded in the run card."""

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from lstm_dist.cluster import devices, provenance
from lstm_dist.cluster.cpu_affinity import Affinity
from lstm_dist.cluster.energy import Meter
from lstm_dist.cluster.interfaces import connected_interfaces
from lstm_dist.cluster.machine import describe_machine
from lstm_dist.cluster.recorded_variables import recorded_variables
from lstm_dist.comm.world import World
from lstm_dist.train.setup import Job


class Start(NamedTuple):
    """A start of a job, known to every rank.

    Attributes:
        process: facts of this process, from `provenance.describe_process`; those of the root go into the run card.
        ranks: facts of each rank.
        hosts: facts of each host, by its name.
        rounding: on what the rounding depends: `workers`, `controller`, `threads`, `kernels`.
    """

    process: Mapping[str, Any]
    ranks: Sequence[Mapping[str, Any]]
    hosts: Mapping[str, Mapping[str, Any]]
    rounding: Mapping[str, Any]

    @classmethod
    def gather(
        cls, job: Job, world: World, process: Mapping[str, Any], affinity: Affinity, meter: Optional[Meter] = None
    ) -> "Start":
        """Exchange the facts of all ranks; all of them call it together.

        Args:
            job: what is trained.
            world: all workers.
            process: from `provenance.describe_process`.
            affinity: the cores of this worker.
            meter: of the energy that this worker accounts for; None if it is not measured.
        """
        ctx = job.model.ctx
        mine = provenance.describe_rank(str(ctx), devices.identity(ctx), affinity.share or affinity.allowed)
        mine.update(pinning=affinity.describe(), interfaces=_interfaces(world))
        mine.update(energy=meter.describe() if meter else None)
        gathered = world.allgather_object([mine, describe_machine()], "ranks")
        ranks = [rank for rank, _ in gathered]
        hosts = {rank["host"]: machine for rank, machine in reversed(gathered)}
        rounding = {
            "workers": world.size,
            "controller": world.controller,
            "threads": ranks[0]["threads"],
            "kernels": job.model.arithmetic,
        }
        return cls(process, ranks, hosts, rounding)

    @property
    def software(self) -> Dict[str, Any]:
        """Return which software computes: the digest of the code, and the versions of the packages."""
        return {name: self.process[name] for name in ("code", "versions")}

    def card(self, job: Job, world: World, first_step: int, warnings: Sequence[str]) -> Dict[str, Any]:
        """Return the run card of this start.

        Args:
            job: what is trained.
            world: all workers.
            first_step: the step after which training continues.
            warnings: of the checks before the start.
        """
        return {
            **self.process,
            "step": first_step,
            "workers": world.size,
            "controller": world.controller,
            "mpi": world.mpi,
            "environment": recorded_variables(os.environ),
            "corpus": job.text.describe(),
            "ranks": list(self.ranks),
            "hosts": dict(sorted(self.hosts.items())),
            "warnings": list(warnings),
        }

    def notes(self) -> List[str]:
        """Return lines on differences between the workers that change the rounding."""
        processors = list(dict.fromkeys(rank["processor"] for rank in self.ranks))
        if len(processors) < 2:
            return []
        return [
            f"note: the workers have different processors ({'; '.join(processors)}), see run.json: a rerun on other "
            "ones has the same trajectory up to floating-point rounding"
        ]


def _interfaces(world: World) -> Optional[List[str]]:
    """Return the network interfaces that this worker exchanges gradients over; None if it needs, or tells, none.

    The workers of one host communicate over memory under MPI; their connections are those to the launcher.
    """
    if world.size == 1 or (world.is_one_host and world.controller == "mpi"):
        return None
    return connected_interfaces(to_other_hosts=not world.is_one_host)
