"""The cost of known jobs: node-hours, core-hours and energy, in the table, its CSV file and the text of the section."""

import csv
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.render import as_csv
from lstm_dist.scaling.analysis import analyse
from lstm_dist.scaling.job_energy import ACCOUNTED
from lstm_dist.scaling.records import read_rows
from lstm_dist.scaling.sections.cost import cost
from tests.support.scaling_results import SPREAD, point, save

BILLION = 1e9


def job(workers: int, rate: float, repeat: int = 1, **facts: Any) -> Dict[str, Any]:
    """Return a job of 900 s with two workers of four cores on each host."""
    hosts = -(-workers // 2)
    known: Dict[str, Any] = {"seconds": 900.0, "hosts": hosts, "cores": 4 * workers, "oversubscribed": False}
    known["epochs"] = [{"chars_per_sec": rate, "steps": 50}]
    return point(f"weak-n{workers:03d}-r{repeat}", "weak", workers, 32 * workers, repeat, **{**known, **facts})


def energy(joules: Optional[float], source: str = "RAPL of 2 packages", chars: int = 1_000_000) -> Dict[str, Any]:
    return {"joules": joules, "source": source, "chars": chars, "job_chars": chars}


def section(folder: Path, *jobs: Dict[str, Any]) -> Section:
    return cost(analyse(read_rows(save(folder, *jobs), allow_mixed=False)))


def csv_rows(found: Section, file: str = "cost.csv") -> Dict[int, Dict[str, str]]:
    (table,) = [table for table in found.tables if table.file == file]
    return {int(row["workers"]): row for row in csv.DictReader(as_csv(table).splitlines())}


def text(found: Section) -> List[str]:
    return [paragraph.replace("\N{NO-BREAK SPACE}", " ") for paragraph in found.paragraphs]


def test_cost_is_that_of_hosts_and_cores_at_the_measured_rate(tmp_path: Path):
    jobs = [job(workers, rate * factor, repeat) for workers, rate in ((1, 10_000.0), (4, 32_000.0))
            for repeat, factor in enumerate(SPREAD, 1)]  # fmt: skip
    found = section(tmp_path, *jobs)
    one, four = (csv_rows(found)[workers] for workers in (1, 4))
    assert [four[name] for name in ("hosts", "cores")] == ["2", "16"]
    spent = csv_rows(found, "spent.csv")[4]  # three jobs of a quarter of an hour, on two hosts and sixteen cores
    assert [float(spent[name]) for name in ("jobs", "node_hours", "core_hours")] == pytest.approx([3, 1.5, 12])
    hours = BILLION / 32_000 / 3600
    assert [float(four[name]) for name in ("hours", "node_hours", "core_hours")] == pytest.approx(
        [hours, 2 * hours, 16 * hours]
    )
    assert float(four["chars_per_node_hour"]) == pytest.approx(BILLION / (2 * hours))
    assert float(four["node_hours_low"]) < 2 * hours < float(four["node_hours_high"])
    assert float(one["node_hours"]) == pytest.approx(BILLION / 10_000 / 3600)
    total, proposal, _ = text(found)
    assert total.startswith("The 6 training jobs of this experiment took 2.25 node-hours, or 15.0 core-hours, ")
    assert proposal == (
        "For a proposal: under weak scaling with 128 streams, 4 workers on 2 hosts with 16 cores in all trained on "
        "32,000 characters per second. 10⁹ characters then take 8.68 hours and cost 17.4 node-hours (95 % interval: "
        "16.5 to 18.3) and 139 core-hours; starts, checkpoints and validation are not included. 1 worker needed the "
        "fewest core-hours (111)."
    )


def test_old_jobs_without_their_cores_have_no_cost(tmp_path: Path):
    found = section(tmp_path, job(1, 10_000.0, cores=0))
    assert found.paragraphs == ["No job has finished whose cost could be told."]


def test_failed_and_oversubscribed_jobs_are_paid_for_but_not_proposed(tmp_path: Path):
    failed = job(2, 1.0, 2, state="failed", status=70, message="no", epochs=[])
    found = section(tmp_path, job(1, 10_000.0), failed, job(2, 90_000.0, oversubscribed=True))
    total, proposal, _ = text(found)
    assert total.startswith("The 3 training jobs of this experiment took 0.750 node-hours, or 5.00 core-hours, ")
    assert "1 worker on 1 host with 4 cores trained on 10,000 characters per second" in proposal
    assert "interval" not in proposal, "one job has none"
    assert csv_rows(found, "spent.csv")[2]["jobs"] == "1"
    assert found.tables[0].rows[1].mark == "oversubscribed"


def test_proposal_from_two_jobs_has_both_in_place_of_an_interval(tmp_path: Path):
    found = section(tmp_path, job(1, 10_000.0, 1), job(1, 20_000.0, 2))
    assert "cost 19.6 node-hours (13.9 and 27.8 in its two jobs) and 78.6 core-hours" in text(found)[1]


def test_energy_is_that_of_the_jobs_that_know_theirs(tmp_path: Path):
    found = section(
        tmp_path,
        job(2, 10_000.0, 1, energy=energy(400.0)),
        job(2, 10_000.0, 2, energy=energy(1000.0, chars=2_500_000)),
        job(2, 10_000.0, 3, energy=energy(None, "permission denied: energy_uj")),
        job(4, 20_000.0, 1),
    )
    two, four = (csv_rows(found)[workers] for workers in (2, 4))
    assert float(two["chars_per_joule"]) == pytest.approx(2500)
    assert four["chars_per_joule"] == ""
    spent = csv_rows(found, "spent.csv")
    assert float(spent[2]["joules_per_job"]) == pytest.approx((400 * 1000) ** 0.5)
    assert spent[4]["joules_per_job"] == ""
    said = text(found)[-1]
    assert said.startswith("The energy comes from: RAPL of 2 packages. ")
    assert said.endswith("The energy of some jobs is unknown: permission denied: energy_uj; it was not recorded.")
    assert "kWh" not in text(found)[1], "the energy of the fastest is unknown"


def test_energy_of_slurm_is_not_said_to_be_that_of_counters(tmp_path: Path):
    accounted = job(2, 10_000.0, energy=energy(400.0, ACCOUNTED))
    assert text(section(tmp_path / "slurm", accounted))[-1] == f"The energy comes from: {ACCOUNTED}."
    both = text(section(tmp_path / "both", accounted, job(2, 10_000.0, 2, energy=energy(400.0))))[-1]
    assert "The counters of RAPL and NVML were read on every host" in both


def test_energy_of_a_proposal_is_in_kilowatt_hours(tmp_path: Path):
    said = text(section(tmp_path, job(2, 10_000.0, energy=energy(400.0))))[1]
    assert f"and {BILLION / 2500 / 3.6e6:.3f} kWh; starts" in said


def test_machine_without_counters_has_no_columns_of_energy(tmp_path: Path):
    found = section(tmp_path, job(1, 10_000.0, energy=energy(None, "no RAPL counters: a virtual machine")))
    assert text(found)[-1] == "The energy is unknown: no RAPL counters: a virtual machine."
    assert not [column for table in found.tables for column in table.columns if "J" in column]


def test_experiment_of_failed_jobs_has_no_cost(tmp_path: Path):
    found = section(tmp_path, job(1, 1.0, state="failed", status=70, message="no", epochs=[]))
    assert found.tables == []
    assert found.paragraphs == ["No job has finished whose cost could be told."]
