"""The energy of a training job, for its row: from the files of its run, or else from Slurm's accounting."""

import json
import subprocess
from math import fsum
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

ACCOUNTED = "sacct, for the whole step of the workers, with its start"  # source of an energy
_TIMEOUT = 60.0  # seconds for sacct
_UNSET = 2**63  # Slurm writes numbers above this for energy that was not measured


def job_energy(run_card: Path, epochs: Sequence[Mapping[str, Any]], chars: int, job_chars: int) -> Dict[str, Any]:
    """Return the energy of a job as its workers have read it.

    Args:
        run_card: the file in which the job described its run.
        epochs: the lines of metrics.jsonl that count.
        chars: characters of these epochs.
        job_chars: characters of the whole job.

    Returns:
        The fields of `records.Energy`.
    """
    packages, gpus = (_total(epochs, name) for name in ("package_joules", "gpu_joules"))
    return {
        "joules": _joules(packages, gpus),
        "source": "; ".join(_sources(run_card)),
        "chars": chars,
        "job_chars": job_chars,
    }


def _total(epochs: Sequence[Mapping[str, Any]], name: str) -> Optional[float]:
    """Return the sum over the epochs; None if that of one is unknown."""
    joules = [float(epoch[name]) for epoch in epochs if epoch.get(name) is not None]
    return fsum(joules) if len(joules) == len(epochs) else None


def _joules(packages: Optional[float], gpus: Optional[float]) -> Optional[float]:
    """Return the joules of a job; of a job on GPUs, those of the GPUs alone if those of the packages are unknown."""
    if gpus is None:
        return None
    return (packages or 0.0) + gpus or None  # a counter that has not moved says nothing


def _sources(run_card: Path) -> List[str]:
    """Return the distinct descriptions of what the workers have read; none if the run has not recorded them."""
    try:
        ranks = json.loads(run_card.read_bytes())["ranks"]
    except (OSError, ValueError, KeyError):
        return []
    return list(dict.fromkeys(text for rank in ranks for text in rank.get("energy") or []))


def with_accounted_energy(row: Dict[str, Any], job: str) -> Dict[str, Any]:
    """Return the row of a Slurm job with the energy from Slurm's accounting, if its workers could read none.

    Args:
        row: of a training job that has ended.
        job: Slurm's number of the job.
    """
    energy = row.get("energy")
    if not energy or energy["joules"]:
        return row
    joules, text = _accounted(job)
    if joules:
        return {**row, "energy": {**energy, "joules": joules, "source": text, "chars": energy["job_chars"]}}
    return {**row, "energy": {**energy, "source": "; ".join(filter(None, [energy["source"], text]))}}


def _accounted(job: str) -> "tuple[Optional[float], str]":
    """Return the joules of a job's workers according to sacct, and what they are, or why they are unknown.

    The step of the workers has the energy of all their nodes; the one of the batch script is that of a part of them.
    """
    command = ["sacct", "--noheader", "--parsable2", f"--jobs={job}", "--format=JobID,ConsumedEnergyRaw"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"no answer of sacct: {error}"
    if done.returncode:
        return None, f"no answer of sacct: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    fields = [line.split("|") for line in done.stdout.splitlines()]
    steps = [int(raw) for name, raw in fields if name.rpartition(".")[2].isdigit() and "." in name and raw.isdigit()]
    joules = max((raw for raw in steps if raw < _UNSET), default=0)
    if not joules:
        return None, "sacct has no energy (AcctGatherEnergyType is not set in slurm.conf)"
    return float(joules), ACCOUNTED
