"""The energy in a job's row: the sum over its epochs, or that of Slurm's accounting, or why it is unknown."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from lstm_dist.scaling.job_energy import job_energy, with_accounted_energy

RAPL, DENIED, NVML = "RAPL of 2 packages", "permission denied: energy_uj", "NVML"


def card(folder: Path, *texts: List[str]) -> Path:
    (folder / "run.json").write_text(json.dumps({"ranks": [{"energy": list(text)} for text in texts]}))
    return folder / "run.json"


def epochs(*joules: "tuple[Optional[float], Optional[float]]") -> List[Dict[str, Any]]:
    return [{"package_joules": packages, "gpu_joules": gpus} for packages, gpus in joules]


@pytest.mark.parametrize(
    ("measured", "joules"),
    [
        ([(10.0, 0.0), (12.0, 0.0)], 22.0),  # on CPUs
        ([(10.0, 100.0), (12.0, 120.0)], 242.0),
        ([(None, 100.0), (None, 120.0)], 220.0),  # on GPUs whose host does not tell its own
        ([(10.0, None), (12.0, None)], None),  # that of the packages is the smaller part
        ([(10.0, 0.0), (None, 0.0)], None),
        ([(None, 0.0), (None, 0.0)], None),
        ([(0.0, 0.0), (0.0, 0.0)], None),  # too short for the counter to move
    ],
)
def test_energy_is_the_sum_over_the_epochs(measured: Any, joules: Optional[float], tmp_path: Path):
    found = job_energy(card(tmp_path, [RAPL, NVML], [], [RAPL]), epochs(*measured), 70, 90)
    assert found == {"joules": joules, "source": f"{RAPL}; {NVML}", "chars": 70, "job_chars": 90}


def test_run_from_before_it_was_recorded_has_none(tmp_path: Path):
    (tmp_path / "run.json").write_text('{"ranks": [{}, {"energy": null}]}')
    for file in (tmp_path / "run.json", tmp_path / "absent"):
        assert job_energy(file, [{}, {}], 7, 9) == {"joules": None, "source": "", "chars": 7, "job_chars": 9}


@pytest.fixture
def sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts a stub of sacct on PATH, which checks its flags."""

    def answer(lines: str, status: int = 0) -> None:
        wanted = ["--noheader", "--parsable2", "--jobs=12_3", "--format=JobID,ConsumedEnergyRaw"]
        program = (
            f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == {wanted}\n"
            f"print({lines!r}, file=sys.stderr if {status} else sys.stdout)\nsys.exit({status})\n"
        )
        (tmp_path / "sacct").write_text(program)
        (tmp_path / "sacct").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    return answer


def row(joules: Optional[float]) -> Dict[str, Any]:
    return {"id": "weak-n001-r1", "energy": {"joules": joules, "source": DENIED, "chars": 70, "job_chars": 90}}


def test_energy_of_a_slurm_job_is_that_of_the_step_of_its_workers(sacct: Any):
    sacct("12_3|900\n12_3.batch|400\n12_3.extern|950\n12_3.0|800")
    expected = {"joules": 800.0, "chars": 90, "job_chars": 90}
    source = "sacct, for the whole step of the workers, with its start"
    assert with_accounted_energy(row(None), "12_3")["energy"] == {**expected, "source": source}
    assert with_accounted_energy(row(5.0), "12_3") == row(5.0), "what the workers have read is more exact"
    assert with_accounted_energy({"id": "old"}, "12_3") == {"id": "old"}


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        ("12_3|\n12_3.0|0", 0, "sacct has no energy (AcctGatherEnergyType is not set in slurm.conf)"),
        ("12_3.0|18446744073709551614", 0, "sacct has no energy (AcctGatherEnergyType is not set in slurm.conf)"),
        ("Slurm accounting storage is disabled", 1, "no answer of sacct: Slurm accounting storage is disabled"),
    ],
)
def test_slurm_without_energy_is_named(sacct: Any, lines: str, status: int, reason: str):
    sacct(lines, status)
    found = with_accounted_energy(row(None), "12_3")["energy"]
    assert (found["joules"], found["chars"], found["source"]) == (None, 70, f"{DENIED}; {reason}")


def test_machine_without_sacct_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    source = with_accounted_energy(row(None), "12_3")["energy"]["source"]
    assert source.startswith(f"{DENIED}; no answer of sacct: ")
