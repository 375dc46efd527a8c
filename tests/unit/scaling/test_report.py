"""jobs/report.py: the page, the Markdown and the CSV files of an experiment with known numbers."""

import csv
import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.programs import report
from lstm_dist.scaling.speedup_laws import Law
from tests.support.scaling_results import (
    EXPERIMENT,
    GRADIENTS,
    HOST_LINKS,
    HOSTILE,
    LAW,
    LINK,
    ORIGIN,
    SINGLE,
    everything,
    network,
    on_hosts,
    point,
    save,
    scaling_point,
)

pytestmark = pytest.mark.xdist_group("report")  # so that only one process builds the whole report


class Field(NamedTuple):
    text: str
    values: List[str]


class Page(HTMLParser):
    """The tables of a page by their captions: rows of fields, below the row of headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: Dict[str, List[List[Field]]] = {}
        self.tags: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self._rows: List[List[Field]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if given.get("role") == "region":
            self._rows = self.tables.setdefault(given["aria-label"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(Field("", []))
        elif tag == "data":
            self._rows[-1][-1] = Field("", (given["value"] or "").split(" "))

    def handle_data(self, data: str) -> None:
        if self._rows and self._rows[-1] and self.get_starttag_text().startswith(("<td", "<th", "<data")):
            field = self._rows[-1].pop()
            self._rows[-1].append(field._replace(text=field.text + data.strip("\n")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = []


class Report(NamedTuple):
    folder: Path
    html: str
    page: Page
    markdown: str

    def rows(self, file: str) -> List[Dict[str, str]]:
        with (self.folder / file).open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    def row(self, file: str, **wanted: Any) -> Dict[str, str]:
        (found,) = [row for row in self.rows(file) if all(row[name] == str(value) for name, value in wanted.items())]
        return found


def made(folder: Path, *flags: str) -> Report:
    report.main([str(folder), *flags])
    page = (folder / "report.html").read_text(encoding="utf-8")
    return Report(folder, page, Page(page), (folder / "report.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return made(save(tmp_path_factory.mktemp("whole"), *everything()))


CAPTIONS = {
    "scaling.csv": "Throughput, speedup and efficiency",
    "efficiency.csv": "Efficiency and its factors",
    "times.csv": "The five parts",
    "steps.csv": "Distribution of the time of a step",
    "workers.csv": "Useful time (data, compute, update) of each worker",
    "network.csv": "All measured allreduces",
    "perplexity.csv": "Statistical and hardware efficiency",
    "cost.csv": "Cost of training on",
    "spent.csv": "Spent by all jobs",
}


def table(page: Page, caption: str) -> List[List[Field]]:
    (found,) = [rows for name, rows in page.tables.items() if name.startswith(caption)]
    return found[1:]


def markdown_tables(text: str) -> Iterator[List[List[str]]]:
    """Yield the bodies of all tables, with the displayed text of their fields."""
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line.strip("|\n")) for line in lines.splitlines()[2:]]
        yield [[re.sub(r"\\([^n])", r"\1", html.unescape(field.strip())) for field in row] for row in rows]


def test_speedups_and_intervals_are_those_of_the_known_law(whole: Report):
    for mode in ("weak", "strong"):
        for workers in (1, 2, 4):
            row = whole.row("scaling.csv", mode=mode, workers=workers, state="finished")
            assert float(row["chars_per_sec"]) == pytest.approx(SINGLE * LAW.speedup(workers))
            assert float(row["speedup"]) == pytest.approx(LAW.speedup(workers))
            assert float(row["efficiency_percent"]) == pytest.approx(100 * LAW.speedup(workers) / workers)
            assert row["jobs"] == "3"
            assert float(row["chars_per_sec_low"]) < SINGLE * LAW.speedup(workers) < float(row["chars_per_sec_high"])
    # Student's t of three repetitions is 4.303; that of a ratio, with Welch's four degrees of freedom, 2.776 sqrt(2).
    width = 4.302653 * 0.0202027 / 3**0.5
    row = whole.row("scaling.csv", mode="weak", workers=2, state="finished")
    assert float(row["chars_per_sec_high"]) / float(row["chars_per_sec"]) == pytest.approx(1 + width, rel=2e-3)
    assert float(row["speedup_high"]) / float(row["speedup"]) == pytest.approx(
        1 + width * 2.776 / 4.303 * 2**0.5, rel=3e-3
    )


def test_laws_are_fitted_without_oversubscribed_groups(whole: Report):
    rows = {row[0].text: row for row in table(whole.page, "Laws of speedup")}
    for mode in ("weak", "strong"):
        law = rows[f"USL, {mode}"]
        assert [field.text for field in law[1:4]] == ["2, 4 workers", "5.00", "1.000"]
        assert law[5].text == "2: 0.0 %; 4: 0.0 %"
        assert float(rows[f"Amdahl, {mode}"][2].text) > 5


def test_a_law_that_is_largest_at_one_worker_says_so(tmp_path: Path):
    points, slow = [scaling_point("weak", workers, 1) for workers in (1, 2, 4)], Law("USL", 1.5, 0.1)
    for row in points:
        row["epochs"] = [{"chars_per_sec": SINGLE * slow.speedup(row["workers"]), "steps": 50}]
    assert "1.0 at 1 worker |" in said(made(save(tmp_path, *points)))


def test_help_names_every_csv_file(whole: Report):
    named = re.findall(r"[\w-]+\.csv", report.__doc__ or "")
    assert {path.name for path in whole.folder.glob("*.csv")} <= set(named)


def test_times_csv_has_the_times_of_the_parts_and_the_slowest_rank(whole: Report):
    compute = whole.row("times.csv", mode="weak", workers=4, part="compute")
    assert float(compute["least_ms"]) == pytest.approx(51)
    assert float(compute["median_ms"]) == pytest.approx((51 + 51.2) / 2)  # rank 0 was late once
    assert float(compute["most_ms"]) == pytest.approx(51 + 0.9 * 2)
    assert float(compute["mean_ms"]) == pytest.approx(51 + 2 / 4)
    assert (compute["last_rank"], compute["last_host"], float(compute["last_percent"])) == ("3", "vm", 90)
    row = next(row for row in table(whole.page, "Shares of the time") if [f.text for f in row[:2]] == ["weak", "4"])
    wire, total = 1000 * LINK.seconds(4, GRADIENTS), 51.5 + 1.5 + 1.1 + 1000 * LINK.seconds(4, GRADIENTS)
    bandwidth = 1000 * 1.5 * GRADIENTS * LINK.beta
    expected = [48, 3.5, 1.5, wire - bandwidth, bandwidth, 1.1]
    assert [float(field.values[0]) for field in row[3:9]] == pytest.approx([100 * part / total for part in expected])


def test_the_efficiency_has_the_known_factors_and_the_shade_of_its_value(whole: Report):
    """Of four workers in weak scaling, each computes 51 ms, and the last one 2 ms more in nine of ten steps."""
    row = whole.row("efficiency.csv", mode="weak", workers=4)
    useful, slowest, critical = 51 + 0.5 + 1.1, 51 + 1.8 + 1.1, 51 + 2 + 1.1
    elapsed = critical + 1000 * LINK.seconds(4, GRADIENTS)
    factors = [useful / slowest, slowest / critical, critical / elapsed, 49.1 / useful]
    names = ("load_balance", "serialization", "transfer", "computation_scaling")
    assert [float(row[f"{name}_percent"]) for name in names] == pytest.approx([100 * factor for factor in factors])
    assert float(row["parallel_efficiency_percent"]) == pytest.approx(100 * useful / elapsed)
    assert float(row["global_efficiency_percent"]) == pytest.approx(100 * 49.1 / elapsed)
    assert (row["lowest_factor"], row["baseline_workers"]) == ("computation_scaling", "1")
    assert "Weak scaling, 4 workers: global efficiency 88 %. The lowest factor is computation scaling" in said(whole)
    assert "Strong scaling, 4 workers: global efficiency 62 %" in said(whole)
    shades = [(tag["class"] or "").split(" ")[-1] for name, tag in whole.page.tags if name == "td" and "class" in tag]
    values = [
        float(row[f"{name}_percent"])
        for row in whole.rows("efficiency.csv")
        for name in ("global_efficiency", "parallel_efficiency", *names)
    ]
    expected = ["good" if value >= 80 else "fair" if value >= 60 else "poor" for value in values]
    assert {"good", "fair", "poor"} == set(expected)
    assert [shade for shade in shades if shade != "number"] == expected


@pytest.mark.parametrize("slower", [1.0, 1.25])
def test_the_efficiency_of_profiled_steps_is_compared_with_that_of_the_throughput(tmp_path: Path, slower: float):
    """Two workers whose steps take 1.25 times as long when they are not profiled have 4/5 of the efficiency."""
    elapsed = {1: 0.0491, 2: 0.0491 + 0.003 + LINK.seconds(2, GRADIENTS)}
    points = [scaling_point("weak", workers, 1) for workers in elapsed]
    for row, seconds in zip(points, (elapsed[1], slower * elapsed[2])):
        row["epochs"] = [{"chars_per_sec": row["streams"] * EXPERIMENT["seq_len"] / seconds, "steps": 50}]
    found = made(save(tmp_path, *points))
    difference = 100 * elapsed[1] / elapsed[2] * (1 - 1 / slower)
    assert f"by at most {difference:.1f} percentage points under weak scaling (2 workers)" in said(found)


def test_an_efficiency_without_a_low_factor_says_what_its_factors_are(tmp_path: Path):
    """The product of four factors may be lower than all of them, so that something is lost."""
    points = [scaling_point("weak", workers, 1) for workers in (1, 2)]
    for row in points:
        for one in row["times"]:
            slower = 1.004 if row["workers"] == 2 else 1.0
            one.update(data=0.0, update=0.0, wait=0.0, compute=0.05 * slower, wire=0.0002 * (row["workers"] - 1))
    found = said(made(save(tmp_path, *points)))
    assert "Weak scaling, 2 workers: global efficiency 99 %. Every factor is at least 99.5 %." in found


def test_the_distribution_of_steps_says_what_it_cannot_know(whole: Report):
    row = whole.row("steps.csv", mode="weak", workers=4)
    longest = 54.1 + 1000 * LINK.seconds(4, GRADIENTS)
    assert [float(row[name]) for name in ("median_ms", "percentile_95_ms", "slowest_ms")] == pytest.approx(
        [longest] * 3
    )
    assert (row["steps"], row["percentile_99_ms"]) == ("30", "")
    assert "the 99th needs 100 timed steps and the 95th 20" in said(whole)
    assert "The fewest here are 30" in said(whole)
    assert float(row["jitter_percent"]) == pytest.approx(0, abs=1e-9), "all steps of the last rank but one are late"
    assert "Jitter takes less than 5 % of a step in every job." in said(whole)
    worker = whole.row("workers.csv", mode="weak", workers=4, rank=3)
    assert float(worker["median_ms"]) == pytest.approx(54.1)


def test_jitter_that_bounds_a_job_is_named(tmp_path: Path):
    jittery = scaling_point("weak", 2, 1)
    for one in jittery["times"]:
        one["compute"] += 0.05 if one["step"] in (3, 7) and one["rank"] == 0 else 0.0
    found = made(save(tmp_path, scaling_point("weak", 1, 1), jittery))
    assert re.search(
        r"Jitter takes 5 % of a step or more in these jobs: 1\d % with 2 workers under weak scaling\.", said(found)
    )


def said(report: Report) -> str:
    """Return the Markdown without its no-break spaces."""
    return report.markdown.replace("\N{NO-BREAK SPACE}", " ")


def test_link_and_predictions_follow_the_known_constants(whole: Report):
    for row, call in zip(table(whole.page, "The link"), ("0.1000", "0.0000")):
        expected = ["within a host", "2, 4 workers", call, "0.0050", "0.0200", "1.000", "1,000"]
        assert [field.text for field in row[1:8]] == expected
    assert "All workers were on one host, so the link between hosts is unknown" in whole.markdown
    assert "the link between hosts is unknown; all further workers are assumed to be as distant" in whole.markdown
    fitted = whole.row("network.csv", path="horovod-mpi", workers=4, bytes=2048)
    assert float(fitted["fitted_ms"]) == pytest.approx(1000 * LINK.seconds(4, 2048))
    assert float(fitted["residual_percent"]) == pytest.approx(0, abs=1e-6)
    steps = {(row[0].text, row[1].text): row for row in table(whole.page, "Steps predicted")}
    own, link, predicted, measured, error = (float(field.values[0]) for field in steps["weak", "4"][3:8])
    assert own == pytest.approx(51 + 2 + 1.1)
    assert link == pytest.approx(1000 * LINK.seconds(4, GRADIENTS))
    assert predicted == pytest.approx(own + link)
    assert measured == pytest.approx(1000 * 128 * 35 / (SINGLE * LAW.speedup(4)))
    assert error == pytest.approx(100 * (predicted / measured - 1))
    weak = [row for row in table(whole.page, "Predicted, not measured") if row[0].text == "weak"]
    assert [row[1].text for row in weak] == ["8", "16", "32", "64", "128", "256", "512", "1,024"]
    low, high = (float(value) for value in weak[-1][4].values)
    assert float(weak[-1][3].values[0]) == pytest.approx(own + 1000 * LINK.seconds(1024, GRADIENTS))
    assert low < float(weak[-1][3].values[0]) < high
    strong = [row[1].text for row in table(whole.page, "Predicted, not measured") if row[0].text == "strong"]
    assert strong == ["8", "16", "32"]  # no more workers than streams


def test_links_within_a_host_and_between_hosts_are_told_apart(tmp_path: Path):
    points = [on_hosts(scaling_point("weak", workers, 1)) for workers in (1, 2, 4)]
    links = [on_hosts(network(path, workers)) for path in ("horovod-mpi", "mpi") for workers in (2, 3, 4, 8)]
    found = made(save(tmp_path, *points, *links))
    shown = [[field.text for field in row[:8]] for row in table(found.page, "The link")]
    within = ["within a host", "2 workers", "0.0000", "0.0050", "0.0200", "1.000", "1,000"]
    between = ["between hosts", "3, 4, 8 workers", "0.5000", "0.0500", "0.2000", "8.000", "125"]
    assert shown[:2] == [["Horovod over MPI", *within], ["Horovod over MPI", *between]]
    assert shown[2:] == [["plain MPI", *within], ["plain MPI", *between[:2], "0.0000", *between[3:]]]
    compared = {row[1].values[0]: float(row[4].values[0]) for row in table(found.page, "Steps predicted")}
    assert compared == pytest.approx({str(n): 1000 * HOST_LINKS.seconds(n, GRADIENTS) for n in (1, 2, 4)})
    forecast = {row[1].text: float(row[3].values[0]) for row in table(found.page, "Predicted, not measured")}
    own = 51 + 2 + 1.1  # of four workers
    for workers in (8, 64):
        assert forecast[str(workers)] == pytest.approx(own + 1000 * HOST_LINKS.seconds(workers, GRADIENTS))
    assert found.row("network.csv", path="mpi", workers=8, bytes=64)["hosts"] == "4"
    assert "there are 2 workers on every host, as measured; more than 2 use the link between hosts" in found.markdown


@pytest.mark.parametrize(
    ("per_host", "workers", "said"),
    [
        (1, (2, 4), "Every worker was on a host of its own, so the link within a host is unknown"),
        (2, (4, 8), "No allreduce had all its workers on one host, so the two links are not told apart"),
    ],
)
def test_an_unknown_link_is_named(per_host: int, workers: Tuple[int, ...], said: str, tmp_path: Path):
    rows = [network("mpi", n, hosts=n // per_host, oversubscribed=False) for n in workers]  # without workers_per_host
    found = made(save(tmp_path, *rows))
    assert [row[1].text for row in table(found.page, "The link")] == ["between hosts"]
    assert said in found.markdown


def test_every_group_is_analysed_with_the_bytes_that_it_sent(tmp_path: Path):
    sent = {1: 400_000, 2: 500_000, 4: 700_000}
    points = [{**scaling_point("weak", workers, 1), "bytes": size} for workers, size in sent.items()]
    links = [network(path, workers) for path in ("horovod-mpi", "mpi") for workers in (2, 4)]
    found = made(save(tmp_path, *points, *links))
    compared = {row[1].text: row for row in table(found.page, "Steps predicted")}
    shares = {row[1].text: row for row in table(found.page, "Shares of the time")}
    for workers, size in sent.items():
        row = compared[str(workers)]
        seconds = LINK.seconds(workers, size)
        assert [float(row[column].values[0]) for column in (2, 4)] == pytest.approx([size, 1000 * seconds])
        latency, bandwidth = (float(field.values[0]) for field in shares[str(workers)][6:8])
        assert bandwidth * seconds == pytest.approx((latency + bandwidth) * LINK.without_latency.seconds(workers, size))
    assert "400 kB to 700 kB per worker and step; all parameters have 1 MB" in said(found)
    assert "the gradients of 4 workers (700 kB) take" in said(found)
    forecast = table(found.page, "Predicted, not measured")
    assert {row[2].values[0] for row in forecast} == {str(GRADIENTS)}, "without a text, all parameters"
    assert "is never less than what was measured" in said(found)


def test_total_efficiency_is_the_product_of_both(whole: Report):
    first, second, missed, last = whole.rows("perplexity.csv")
    assert [float(first[name]) for name in ("statistical_percent", "hardware_percent", "both_percent")] == [
        100,
        100,
        100,
    ]
    assert float(second["statistical_percent"]) == pytest.approx(80)
    assert float(second["hardware_percent"]) == pytest.approx(100)
    assert float(second["both_percent"]) == pytest.approx(80)
    assert (missed["jobs"], missed["missed"], missed["chars"]) == ("0", "1", "")
    assert float(last["statistical_percent"]) == pytest.approx(50)
    assert float(last["hardware_percent"]) == pytest.approx(50)
    # The time to the target falls by the number of workers times both efficiencies
    assert float(first["seconds"]) / float(last["seconds"]) == pytest.approx(8 * float(last["both_percent"]) / 100)


@pytest.mark.parametrize("file", CAPTIONS)
def test_page_and_csv_hold_the_same_numbers(whole: Report, file: str):
    shown, kept = table(whole.page, CAPTIONS[file]), whole.rows(file)
    assert len(shown) == len(kept) > 0
    for fields, row in zip(shown, kept):
        values = [value for field in fields for value in field.values if value not in ("nan", "inf")]
        assert values
        assert [value for value in row.values() if value in values] == values
        for field in fields:
            if len(field.values) == 1 and re.fullmatch(r"[+−\d.,]+", field.text):
                digits = len(field.text.partition(".")[2])
                number = float(field.text.replace(",", "").replace("−", "-"))
                assert number == pytest.approx(float(field.values[0]), abs=0.501 * 10**-digits)


def test_page_and_markdown_show_the_same(whole: Report):
    on_page = [[[field.text for field in row if field.text] for row in rows[1:]] for rows in whole.page.tables.values()]
    in_markdown = [[[text for text in row if text] for row in rows] for rows in markdown_tables(whole.markdown)]
    flat = [[[text.replace("\n", "\\n") for text in row] for row in rows] for rows in on_page]
    assert in_markdown == flat


def test_failed_jobs_are_rows_and_their_messages_are_escaped(whole: Report):
    failed = whole.row("scaling.csv", state="failed")
    assert (failed["mode"], failed["workers"], failed["status"], failed["message"]) == ("weak", "4", "76", HOSTILE)
    assert failed["speedup"] == ""
    assert whole.row("network.csv", state="failed")["message"] == HOSTILE
    texts = [field.text for row in table(whole.page, CAPTIONS["scaling.csv"]) for field in row]
    assert f"weak-n004-r4: status 76: {HOSTILE}" in texts
    assert not [tag for tag, _ in whole.page.tags if tag == "script"]
    assert "<script" not in whole.markdown
    assert "2 failed" in whole.html


def test_oversubscribed_groups_are_marked_and_not_used(whole: Report):
    (row,) = [row for row in whole.rows("scaling.csv") if (row["mode"], row["workers"]) == ("weak", "8")]
    assert row["oversubscribed"] == "True"
    marked = [r for r in table(whole.page, CAPTIONS["scaling.csv"]) if r[1].text == "8"]
    assert [r[-1].text for r in marked] == ["oversubscribed", "oversubscribed"]
    assert "fill: var(--paper)" in whole.html  # hollow markers
    summary = whole.markdown.split("\n\n")[1]
    assert "8 workers are" not in summary
    assert "The jobs of 8 workers were oversubscribed (more threads than cores, or workers than GPUs)" in summary
    assert not [r for r in whole.rows("network.csv") if r["workers"] == "8" and r["residual_percent"]]


def test_an_oversubscribed_baseline_is_not_used_for_conclusions(tmp_path: Path):
    summary = said(made(save(tmp_path, scaling_point("weak", 8, 1)))).split("\n\n")[1]
    assert summary.startswith("No conclusions about scaling: ")
    assert "The jobs of 8 workers were oversubscribed" in summary


def test_the_summary_names_what_limits_the_job(whole: Report):
    summary = whole.markdown.split("\n\n")[1].replace("\N{NO-BREAK SPACE}", " ")
    weak = "Weak scaling, 32 streams per worker: 2 workers are 1.87 times as fast as one (efficiency 93 %), "
    again = "4 workers 3.15 times (79 %), "
    largest = "limited by useful compute ({} % of a step), then "
    assert summary.startswith("One worker takes 49.1 ms per step, 98 % of it compute")
    assert f"{weak}{largest.format(90)}extra compute due to shared memory and cores (4 %)" in summary
    # Strong, four workers: of 19.78 ms per step, 12 ms are compute for 8 streams each, and 3.5 ms are extra compute.
    assert f"{again}{largest.format(61)}compute that does not shrink with the streams (18 %)" in summary
    assert "under strong scaling, more streams per worker, or fewer workers per host" in summary
    assert "without this loss the efficiency of 4 workers would be 96 %" in summary  # 79 % / (1 - 17.7 %)


def test_the_page_is_self_contained(whole: Report):
    assert not [tag for tag, _ in whole.page.tags if tag in ("script", "link", "img", "iframe", "object")]
    linked = [a.get("href") or a.get("src") or a.get("xlink:href") or "#" for _, a in whole.page.tags]
    assert all(target.startswith("#") for target in linked)
    assert not re.search(r"url\((?!#)|@import", whole.html)
    assert not re.search(r"#0102\w\w", whole.html)  # every colour of a drawing is a CSS variable of the page
    ids = [a["id"] for _, a in whole.page.tags if "id" in a]
    assert len(ids) == len(set(ids)) > 100
    pictures = [a for _, a in whole.page.tags if a.get("role") == "img"]
    assert len(pictures) == sum(tag == "figure" for tag, _ in whole.page.tags) == 17
    assert all(a["aria-label"] for a in pictures)


def test_the_program_prints_the_summary_and_the_files(tmp_path: Path, capsys: pytest.CaptureFixture):
    made(save(tmp_path, scaling_point("weak", 1, 1), scaling_point("weak", 2, 1)))
    said = capsys.readouterr().out
    assert "2 workers are 1.87 times as fast as one" in said
    files = ("report.html", "report.md", "scaling.csv", "efficiency.csv", "times.csv", "steps.csv", "workers.csv")
    names = ", ".join(str(tmp_path / name) for name in (*files, "cost.csv", "spent.csv"))
    assert said.endswith(f"written: {names}\n")


def test_missing_measurements_are_reported(tmp_path: Path):
    found = made(save(tmp_path / "a b", scaling_point("weak", 1, 1), scaling_point("weak", 2, 1)))
    for sentence in (
        "Strong scaling was not measured; run `jobs/scale.py --mode strong --workers 1,2,4 --out '{}'`.",
        "The network was not measured; run `jobs/scale.py network --workers 1,2,4 --out '{}'`.",
        "Time to perplexity was not measured; "
        "run `jobs/scale.py --mode weak --workers 1,2,4 --to-perplexity 50 --out '{}'`.",
        "Nothing is predicted: this needs timed steps, and a fitted link of the path that the jobs used.",
    ):
        assert sentence.format(tmp_path / "a b") in found.markdown
    assert "<code>jobs/scale.py network" in found.html
    assert not (tmp_path / "a b" / "network.csv").exists()
    row = found.row("scaling.csv", workers=2)
    assert (row["jobs"], row["chars_per_sec_low"]) == ("1", "")  # one measurement has no interval
    assert "communication: " in found.html  # without a link, it is not divided into latency and bandwidth


def test_one_worker_is_the_same_job_in_both_modes(tmp_path: Path):
    found = made(save(tmp_path, scaling_point("weak", 1, 1), scaling_point("strong", 2, 1)))
    assert float(found.row("scaling.csv", mode="strong", workers=2)["speedup"]) == pytest.approx(LAW.speedup(2))


def test_the_number_of_layers_is_reported(tmp_path: Path):
    save(tmp_path, network("mpi", 2))
    assert "LSTM of 256 hidden units" in made(tmp_path).markdown  # written before the setting existed
    (tmp_path / "experiment.json").write_text(json.dumps({**EXPERIMENT, "layers": 2}))
    assert "LSTM of 2 layers of 256 hidden units" in made(tmp_path).markdown


def test_a_report_of_failed_jobs_has_no_conclusions(tmp_path: Path):
    found = made(save(tmp_path, point("weak-n001-r1", "weak", 1, 32, 1, state="failed", status=70, message="no")))
    assert found.row("scaling.csv", state="failed")["message"] == "no"
    assert "No conclusions about scaling" in found.markdown


def test_a_report_of_the_network_alone_is_written(tmp_path: Path):
    found = made(save(tmp_path, *(network("mpi", workers) for workers in (1, 2))))
    assert "2 workers" in table(found.page, "The link")[0][2].text
    assert "Weak scaling was not measured" in found.markdown


def test_measurements_that_do_not_determine_a_link_are_reported(tmp_path: Path):
    found = made(save(tmp_path, network("mpi", 2, sizes=[{"bytes": 64, "seconds": [1e-5]}])))
    assert table(found.page, "The link")[0][1].text.startswith("no link: ")


def refused(folder: Path, *flags: str) -> UserError:
    with pytest.raises(UserError) as caught:
        report.main([str(folder), *flags])
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()
    return caught.value


def test_a_folder_without_an_experiment_is_refused(tmp_path: Path):
    advice = "give the --out of jobs/scale.py, or the directory of a run"
    assert str(refused(tmp_path / "none")) == f"{tmp_path}/none: no such folder; {advice}"
    assert str(refused(tmp_path)) == f"{tmp_path}: has no experiment.json; {advice}"
    assert "has no results yet" in str(refused(save(tmp_path)))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"workers": 0}, "workers: Input should be greater than 0"),
        ({"workers": "many\nworkers"}, "workers: Input should be a valid integer"),
        ({"state": "tired"}, "state: Input should be 'finished' or 'failed'"),
        ({"epochs": []}, "finished, but without epochs"),
        ({"epochs": [{"chars_per_sec": float("nan"), "steps": 1}]}, "epochs.0.chars_per_sec"),
        ({"times": [{"step": 1}]}, "times.0.rank: Field required"),
        ({"mode": "perplexity"}, "finished, but without target, chars or train_seconds"),
    ],
)  # fmt: skip
def test_a_damaged_row_is_named(tmp_path: Path, facts: Dict[str, Any], said: str):
    save(tmp_path, {**scaling_point("weak", 1, 1), **facts})
    error = refused(tmp_path)
    assert str(error).startswith(f"{tmp_path}/points/weak-n001-r1/row.json: is damaged ({said}")
    assert str(error).endswith("; delete it and measure again")
    assert error.status is ExitStatus.BAD_DATA


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"epochs": [{"chars_per_sec": math.inf, "steps": 50}]}, "epochs.0.chars_per_sec"),
        ({"seconds": math.inf}, "seconds"),
        ({"energy": {"joules": math.inf, "chars": 1, "job_chars": 1}}, "energy.joules"),
    ],
)
def test_an_infinite_number_is_damage(tmp_path: Path, facts: Dict[str, Any], field: str):
    save(tmp_path, {**scaling_point("weak", 1, 1), **facts})
    assert f"is damaged ({field}: Input should be a finite number)" in str(refused(tmp_path))


def test_a_cut_off_file_is_named(tmp_path: Path):
    save(tmp_path, scaling_point("weak", 1, 1), network("mpi", 2))
    file = tmp_path / "network" / "mpi-n002" / "row.json"
    file.write_text(file.read_text()[:100])
    assert str(refused(tmp_path)).startswith(f"{file}: is damaged (Invalid JSON")
    file.write_text(json.dumps(network("mpi", 2, sizes=[])))
    assert "finished, but without times" in str(refused(tmp_path))


def test_a_job_without_a_row_is_listed(tmp_path: Path):
    save(tmp_path, scaling_point("weak", 1, 1))
    (tmp_path / "points" / "weak-n002-r1").mkdir()
    assert "without a result: weak-n002-r1" in made(tmp_path).markdown


@pytest.mark.parametrize("name", ["machine", "commit", "code"])
def test_rows_of_different_origin_are_not_mixed(tmp_path: Path, name: str):
    save(tmp_path, scaling_point("weak", 1, 1), {**scaling_point("weak", 2, 1), name: "another"})
    said = f"weak-n001-r1 and weak-n002-r1 differ in {name}: {ORIGIN[name]} and another"
    error = refused(tmp_path)
    assert str(error) == f"{tmp_path}: {said}; measure again, or give --allow-mixed"
    assert f"**{said}: these results may not be comparable**" in made(tmp_path, "--allow-mixed").markdown


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path):
    (save(tmp_path, scaling_point("weak", 1, 1)) / "report.md").mkdir()
    with pytest.raises(UserError, match=r"report\.md: cannot be written \(Is a directory\)") as caught:
        report.main([str(tmp_path)])
    assert caught.value.status is ExitStatus.CANNOT_WRITE


@pytest.fixture(scope="module")
def from_four(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of 4, 8 and 16 workers on 16 cores."""
    cores = {"oversubscribed": False, "cores": 16}
    rates = [
        {**scaling_point(mode, workers, repeat, slow=1.0), **cores}
        for mode in ("weak", "strong")
        for workers in (4, 8, 16)
        for repeat in (1, 2, 3)
    ]
    links = [network("horovod-mpi", workers) for workers in (2, 4)]
    return made(save(tmp_path_factory.mktemp("four"), *rates, *links))


def test_speedup_is_relative_to_the_smallest_number_of_workers(from_four: Report):
    for mode in ("weak", "strong"):
        for workers in (4, 8, 16):
            row = from_four.row("scaling.csv", mode=mode, workers=workers)
            relative = LAW.speedup(workers) / LAW.speedup(4)
            assert float(row["speedup"]) == pytest.approx(4 * relative)
            assert float(row["efficiency_percent"]) == pytest.approx(100 * 4 * relative / workers)
    rows = table(from_four.page, CAPTIONS["scaling.csv"])
    assert [row[-1].text for row in rows] == ["baseline", "", ""] * 2


def test_every_part_of_the_report_names_the_baseline(from_four: Report):
    laws = {row[0].text: row for row in table(from_four.page, "Laws of speedup")}
    assert [field.text for field in laws["USL, weak"][1:4]] == ["8, 16 workers", "5.00", "1.000"]
    said = from_four.markdown.replace("\N{NO-BREAK SPACE}", " ")
    assert "The baseline is the smallest number of workers measured: 4 workers. Its efficiency is 100 %" in said
    assert "The baseline, 4 workers (weak), takes" in said
    ratio = LAW.speedup(8) / LAW.speedup(4)
    assert f"8 workers are {ratio:.2f} times as fast as 4 (efficiency {100 * ratio / 2:.0f} %)" in said
    assert "the compute of a worker of the baseline, the smallest number of workers, for as many streams" in said
    assert "speedup (4 for 4 workers)" in from_four.html
    assert "one worker, which was not measured" in said
    assert "nan" not in re.sub("<[^>]*>", "", from_four.html)
    shares = {(row[0].text, row[1].text): row for row in table(from_four.page, "Shares of the time")}
    assert [row[4].text for (_, workers), row in shares.items() if workers == "4"] == ["0.0"] * 2, "extra compute"


def test_predicted_efficiency_is_relative_to_the_baseline(from_four: Report):
    step = {mode: 1000 * float(32 * 35) / (SINGLE * LAW.speedup(4)) for mode in ("weak", "strong")}
    step["weak"] *= 4
    rows = table(from_four.page, "Predicted, not measured")
    assert [row[1].text for row in rows if row[0].text == "strong"] == ["32"]
    for row in rows:
        predicted, workers = float(row[3].values[0]), int(row[1].values[0])
        loss = 4 / workers if row[0].text == "strong" else 1
        assert float(row[5].values[0]) == pytest.approx(100 * step[row[0].text] / predicted * loss)
