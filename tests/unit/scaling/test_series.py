"""Jobs that vary controller, threads, workers per node and wire type: series with known numbers, and their report."""

import csv
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from lstm_dist.programs import report
from lstm_dist.scaling.analysis import analyse
from lstm_dist.scaling.comparison.points import compare_points
from lstm_dist.scaling.extrap_text import extrap_texts
from lstm_dist.scaling.point import Point
from lstm_dist.scaling.records import read_rows
from lstm_dist.scaling.series import split_series
from lstm_dist.scaling.summary import summary
from lstm_dist.scaling.variation import Factors, Variation
from tests.support.scaling_results import GRADIENTS, LAW, SINGLE, network, save, scaling_point

pytestmark = pytest.mark.xdist_group("report")

OWN = {"controller": "mpi", "launcher": "horovodrun --mpi on this host"}


def varied_point(workers: int, repeat: int, speed: float, varied: Dict[str, Any], **facts: Any) -> Dict[str, Any]:
    row = scaling_point("weak", workers, repeat, slow=1.0)
    epochs = [{**epoch, "chars_per_sec": speed * epoch["chars_per_sec"]} for epoch in row["epochs"]]
    name = Point("weak", workers, 32 * workers, repeat, Variation(**varied)).name
    return {**row, "id": name, "oversubscribed": False, "epochs": epochs, "varied": varied, **facts}


def swept(*workers: int, **facts: Any) -> List[Dict[str, Any]]:
    """Return two series: MPI, and Gloo with half the throughput."""
    return [
        varied_point(n, repeat, speed, varied, **facts)
        for varied, speed in (({}, 1.0), ({"controller": "gloo"}, 0.5))
        for n in workers
        for repeat in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    failed = {"state": "failed", "status": 76, "message": "gone", "epochs": [], "times": []}
    rows = [*swept(2, 4, 8), varied_point(16, 1, 1.0, {"controller": "gloo"}, **failed)]
    folder = save(tmp_path_factory.mktemp("series"), *rows, network("horovod-mpi", 2), settings=OWN)
    report.main([str(folder)])
    return folder


def read(folder: Path, file: str = "scaling.csv") -> List[Dict[str, str]]:
    with (folder / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_series_has_rows_and_its_own_baseline(whole: Path):
    rows = [row for row in read(whole) if row["state"] == "finished"]
    assert [(row["series"], row["workers"]) for row in rows] == [(s, n) for s in ("mpi", "gloo") for n in "248"]
    for row in rows:
        workers, speed = int(row["workers"]), {"mpi": 1.0, "gloo": 0.5}[row["series"]]
        assert float(row["chars_per_sec"]) == pytest.approx(speed * SINGLE * LAW.speedup(workers))
        assert float(row["speedup"]) == pytest.approx(2 * LAW.speedup(workers) / LAW.speedup(2))
    (failed,) = [row for row in read(whole) if row["state"] == "failed"]
    assert (failed["series"], failed["workers"]) == ("gloo", "16")
    assert {row["series"] for row in read(whole, "times.csv")} == {"mpi", "gloo"}


def test_every_series_has_a_line_of_its_own(whole: Path):
    page, said = ((whole / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert page.count(">Weak scaling: throughput of all workers together<") == 1
    picture = page[page.index(">Weak scaling: throughput of all") :].split("</figure>")[0]
    for name in ("mpi", "gloo"):
        assert f">{name}</text>" in picture, "a legend"
    assert "weak, gloo, 8 workers:" in picture
    assert "Weak scaling, gloo: parts of a step" in page
    assert "Weak scaling, 8 workers: the fastest is mpi (" in said
    assert "; then gloo (50\N{NO-BREAK SPACE}% of that)." in said
    assert "- series: mpi; gloo" in said


def test_pictures_of_series_with_different_baselines_say_so(tmp_path: Path):
    rows = [
        varied_point(n, 1, speed, {"threads": threads} if threads > 1 else {})
        for threads, speed in ((1, 1.0), (2, 1.5), (4, 2.0))
        for n in (1, 2, 4, 8)
        if n >= threads
    ]
    folder = save(tmp_path, *rows, settings=OWN)
    report.main([str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    throughput, speedup = (
        page[page.index(f">Weak scaling: {name}") :].split("</figure>")[0] for name in ("throughput of all", "speedup<")
    )
    assert ">speedup (N at a baseline of N workers)<" in speedup
    assert ">ideal, 1 thread<" in throughput
    assert throughput.count("stroke-dasharray") == 2, "one ideal line, and its sample in the legend"


def test_predictions_use_the_link_of_the_series(whole: Path):
    said = (whole / "report.md").read_text(encoding="utf-8")
    predicted = said[said.index("Steps predicted") :].split("\n\n")[1]
    assert "weak, mpi" in predicted
    assert "gloo" not in predicted, "only MPI was measured alone"


def test_series_have_the_settings_of_their_jobs(tmp_path: Path):
    fields: Tuple[Dict[str, Any], ...] = ({}, {"threads": 2}, {"wire_dtype": "float16", "controller": "gloo"})
    rows = [varied_point(2, 1, 1.0, varied) for varied in fields]
    series = split_series(read_rows(save(tmp_path, *rows, settings=OWN), allow_mixed=False))
    assert [part.series for part in series] == [
        "mpi, 1 thread, float32",
        "mpi, 2 threads, float32",
        "gloo, 1 thread, float16",
    ]
    assert [part.experiment.threads for part in series] == [1, 2, 1]
    assert [part.experiment.bytes for part in series] == [GRADIENTS, GRADIENTS, GRADIENTS / 2]
    assert series[2].experiment.launcher == "horovodrun --gloo on this host"
    assert [len(part.train_rows) for part in series] == [1, 1, 1]


@pytest.mark.parametrize(("launcher", "own"), [("horovodrun --gloo on a:2,b:2", "gloo"), ("srun --mpi=pmix", "mpi")])
def test_folder_from_before_there_were_factors_is_a_series(launcher: str, own: str, tmp_path: Path):
    other = "mpi" if own == "gloo" else "gloo"
    rows = [varied_point(2, 1, 1.0, varied) for varied in ({}, {"controller": other})]
    for row in rows[:1]:
        del row["varied"]
    series = split_series(read_rows(save(tmp_path, *rows, settings={"launcher": launcher}), allow_mixed=False))
    assert [part.series for part in series] == [own, other]
    assert series[0].experiment.launcher == launcher


def test_hosts_are_reported_beside_the_workers(tmp_path: Path):
    rows = [
        varied_point(2, 1, 1.0, {}),
        *(varied_point(n, 1, 1.0, {"workers_per_node": 1}, hosts=n) for n in (2, 4)),
    ]
    folder = save(tmp_path, *rows, settings={"workers_per_node": 2})
    report.main([str(folder)])
    found = {(row["series"], row["workers"]): row["hosts"] for row in read(folder)}
    assert found == {("2 per node", "2"): "1", ("1 per node", "2"): "2", ("1 per node", "4"): "4"}
    said = (folder / "report.md").read_text(encoding="utf-8")
    assert "2 on 1 host |" in said
    assert "4 on 4 hosts |" in said


FAILED: Dict[str, Any] = {"state": "failed", "status": 76, "epochs": [], "times": []}


def summary_of(folder: Path, *rows: Dict[str, Any]) -> str:
    return summary(analyse(read_rows(save(folder, *rows, settings=OWN), allow_mixed=False)))


def test_oversubscribed_jobs_are_named_with_their_series(tmp_path: Path):
    rows = [
        varied_point(n, 1, 1.0, varied, oversubscribed=n > most)
        for varied, most in (({}, 4), ({"threads": 2}, 1))
        for n in (1, 2, 4)
    ]
    said = summary_of(tmp_path, *rows)
    assert "The jobs of 2 and 4 workers (2 threads) were oversubscribed (more threads than cores, or " in said
    rows[3]["oversubscribed"] = rows[0]["oversubscribed"] = True
    said = summary_of(tmp_path, *rows)
    assert "The jobs of 1 worker (1 thread) and 1, 2 and 4 workers (2 threads) were oversubscribed" in said


@pytest.mark.parametrize(
    "others", [[varied_point(1, 1, 1.0, {"threads": 2})], [varied_point(2, 1, 1.0, {"threads": 2}, **FAILED)]]
)
def test_series_without_a_common_number_of_workers_are_not_compared(others: List[Dict[str, Any]], tmp_path: Path):
    said = summary_of(tmp_path, *(varied_point(n, 1, 1.0, {}) for n in (2, 4)), *others)
    assert said == (
        "The series are not compared: this needs a number of workers with finished jobs in all of them, and with a "
        "core for each of their threads."
    )


def test_series_are_compared_with_those_of_the_same_name(tmp_path: Path):
    first = read_rows(save(tmp_path / "a", *swept(2, 4), settings=OWN), allow_mixed=False)
    second = read_rows(save(tmp_path / "b", *swept(2), settings=OWN), allow_mixed=False)
    found = compare_points(first, second)
    assert [(one.groups[0].series, one.ratio.value) for one in found.points] == [("mpi", 1.0), ("gloo", 1.0)]
    assert found.only[0] == [f"weak, {name} with 4 workers and 128 streams" for name in ("mpi", "gloo")]


def test_an_experiment_of_one_series_is_compared_with_that_of_the_same_settings(tmp_path: Path):
    alone = [varied_point(2, repeat, 0.8, {}) for repeat in (1, 2, 3)]
    one = read_rows(save(tmp_path / "one", *alone, settings=OWN), allow_mixed=False)
    two = read_rows(save(tmp_path / "two", *swept(2), settings=OWN), allow_mixed=False)
    (found,) = compare_points(one, two).points
    assert (found.groups[0].series, found.ratio.value) == ("mpi", pytest.approx(1 / 0.8))


def test_single_series_with_other_settings_are_compared(tmp_path: Path):
    jobs = [varied_point(2, repeat, 1.0, {}) for repeat in (1, 2, 3)]
    first, second = (
        read_rows(save(tmp_path / str(threads), *jobs, settings={**OWN, "threads": threads}), allow_mixed=False)
        for threads in (1, 2)
    )
    assert [one.ratio.value for one in compare_points(first, second).points] == [pytest.approx(1.0)]


def test_a_single_combination_changes_no_name():
    factors = Factors(threads=(2,), controller=("gloo",), workers_per_node=(4,), wire_dtype=("float16",))
    assert factors.variations == [Variation()]
    assert Point("weak", 2, 64, 1, factors.variations[0]).name == "weak-n002-r1"


def test_every_combination_has_a_name_of_its_own():
    factors = Factors((4, 2), (1, 2, 4), ("mpi", "gloo"), ("float32", "float16"))
    names = [Point("weak", 8, 256, 1, varied).name for varied in factors.variations]
    assert len(set(names)) == 2 * 3 * 2 * 2
    assert names[0] == "weak-n008-r1"
    assert names[-1] == "weak-n008-pernode2-threads4-gloo-float16-r1"


def test_series_are_exported_to_files_of_their_own(whole: Path):
    texts = extrap_texts(analyse(read_rows(whole, allow_mixed=False)))
    assert list(texts) == ["extrap-weak-mpi.txt", "extrap-weak-gloo.txt"]
    assert texts["extrap-weak-gloo.txt"].startswith("# weak scaling, gloo: ")
