"""jobs/report.py A B: two experiments whose throughputs have known ratios."""

import csv
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.programs import report
from lstm_dist.scaling.comparison.differences import differences
from lstm_dist.scaling.records import read_rows
from tests.support.scaling_results import point, save, scaling_point

RATIO = {1: 1.01, 2: 1.3, 4: 0.7}  # of B over A; three repetitions scatter by 2 %


def changed(workers: int, repeat: int) -> Dict[str, Any]:
    """Return the point of B: RATIO times as many characters per second, and 1 ms less communication."""
    row = scaling_point("weak", workers, repeat)
    for epoch in row["epochs"]:
        epoch["chars_per_sec"] *= RATIO[workers]
    for profile in row["times"]:
        profile["wire"] -= 1e-3 if workers > 1 else 0.0
    return {**row, "machine": "a machine, numpy 2", "code": "cd34", "commit": "c0ffee"}


def first_experiment(repeats: int) -> Iterator[Dict[str, Any]]:
    for workers in (1, 2, 4):
        yield from (scaling_point("weak", workers, repeat + 1) for repeat in range(repeats))
    yield scaling_point("strong", 2, 1)


def second_experiment(repeats: int) -> Iterator[Dict[str, Any]]:
    for workers in (1, 2, 4):
        yield from (changed(workers, repeat + 1) for repeat in range(repeats))


def compare(folder: Path, repeats: int = 3) -> List[Dict[str, str]]:
    """Write the report of both experiments, and return the rows of its first table."""
    first, second = save(folder / "a", *first_experiment(repeats)), save(folder / "b", *second_experiment(repeats))
    report.main([str(first), str(second)])
    return table(second / "comparison.csv")


def table(file: Path) -> List[Dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_ratios_and_verdicts_are_the_known_ones(tmp_path: Path) -> None:
    rows = compare(tmp_path)
    assert [float(row["ratio"]) for row in rows] == pytest.approx(list(RATIO.values()))
    assert [row["verdict"] for row in rows] == ["no difference", "faster", "slower"]
    assert all(float(row["ratio_low"]) < float(row["ratio"]) < float(row["ratio_high"]) for row in rows)


def test_points_measured_once_are_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {row["verdict"] for row in compare(tmp_path, repeats=1)} == {"undecided"}
    points = "weak, 1 worker; weak, 2 workers; weak, 4 workers"
    assert f"undecided at 3 ({points}), measured once (measure again with `--repeat 3`)" in capsys.readouterr().out


def test_summary_counts_verdicts_and_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(tmp_path)
    printed = capsys.readouterr().out
    counts = "faster at 1 (weak, 2 workers), slower at 1 (weak, 4 workers) and not measurably different at 1 (weak, 1 w"
    assert f"Of 3 common points, B is {counts}" in printed
    assert "from 0.700 to 1.300. What differs: digest of the code and machine and versions." in printed


def test_change_of_each_part_of_a_step(tmp_path: Path) -> None:
    compare(tmp_path)
    steps = table(tmp_path / "b" / "comparison-steps.csv")
    assert [float(row["wire_change_ms"]) for row in steps] == pytest.approx([0.0, -1.0, -1.0])
    assert [float(row["compute_change_ms"]) for row in steps] == pytest.approx([0.0, 0.0, 0.0])
    assert float(steps[2]["step_b_ms"]) == pytest.approx(float(steps[2]["step_a_ms"]) - 1.0)


def test_page_shows_differences_and_points_of_one_experiment(tmp_path: Path) -> None:
    compare(tmp_path)
    page = (tmp_path / "b" / "comparison.md").read_text(encoding="utf-8")
    changed = page[page.index("## What differs") :]
    assert all(text in changed for text in ("numpy 2", "ab12", "cd34"))
    assert "Only A has strong with 1 worker and 32 streams and strong with 2 workers and 32 streams." in page


def test_oversubscribed_points_and_failed_jobs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [scaling_point("weak", workers, repeat) for workers in (1, 8) for repeat in (1, 2, 3)]
    lost = point("weak-n002-r1", "weak", 2, 64, 1, state="failed", status=76, message="gone")
    folders = [save(tmp_path / "a", *jobs), save(tmp_path / "b", *jobs, lost)]
    report.main([str(folder) for folder in folders])
    assert "1 point oversubscribed: the ratio may say little." in capsys.readouterr().out
    assert "Failed jobs of B: weak-n002-r1." in (folders[1] / "comparison.md").read_text(encoding="utf-8")


def test_equal_experiments_differ_in_nothing(tmp_path: Path) -> None:
    folders = [save(tmp_path / name, *first_experiment(3)) for name in "ab"]
    report.main([str(folder) for folder in folders])
    page = (folders[1] / "comparison.md").read_text(encoding="utf-8")
    assert "Settings, program, machine and versions are the same." in page
    assert "nothing that was recorded" in page


def test_settings_of_an_old_folder_are_those_that_its_jobs_had(tmp_path: Path) -> None:
    """A folder from before there were factors has the controller in its launcher only."""
    launcher = {"launcher": "horovodrun --mpi on a:2,b:2"}
    settings = launcher, {**launcher, "controller": "mpi", "wire_dtype": "float32"}
    rows = [
        read_rows(save(tmp_path / name, scaling_point("weak", 1, 1), settings=own), allow_mixed=False)
        for name, own in zip("ab", settings)
    ]
    assert differences(*rows) == []
    third = save(tmp_path / "c", scaling_point("weak", 1, 1), settings={**settings[1], "workers_per_node": 2})
    assert differences(rows[0], read_rows(third, allow_mixed=False)) == [("workers per node", "all", "2")]


def test_experiments_without_a_common_point_are_refused(tmp_path: Path) -> None:
    folders = save(tmp_path / "a", scaling_point("weak", 1, 1)), save(tmp_path / "b", scaling_point("weak", 2, 1))
    message = (
        "have no finished weak or strong point with the same number.* with the same --workers, --mode and --streams"
    )
    with pytest.raises(UserError, match=message) as error:
        report.main([str(folder) for folder in folders])
    assert error.value.status == ExitStatus.BAD_DATA
    assert not list(tmp_path.glob("*/comparison*"))


def test_runs_and_a_third_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text("{}")
    with pytest.raises(UserError, match=r"run: is the directory of a run; only experiments of jobs/scale\.py"):
        report.main([str(tmp_path / "run"), str(tmp_path)])
    with pytest.raises(UserError, match="DIR: give one folder, or two to compare them; 3 were given"):
        report.main(["a", "b", "c"])
