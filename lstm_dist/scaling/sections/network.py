"""Section about allreduces without training."""

from typing import List

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import milliseconds, number, size
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.link_figures import link_figures, residuals_figure
from lstm_dist.scaling.sections.distances import measured_links
from lstm_dist.scaling.sections.facts import timed_jobs
from lstm_dist.scaling.sections.suggestion import WORKERS
from lstm_dist.scaling.tables.links import allreduce_table, links_table


def network(findings: Findings, out: str) -> Section:
    """Build the section; `out` is the flag of the commands that would complete it."""
    section = Section("network", "Allreduce alone", [])
    if not findings.rows.allreduce_rows:
        paragraph = f"The network was not measured; run `jobs/scale.py network {WORKERS} {out}`."
        return section._replace(paragraphs=[paragraph])
    fits = findings.link_fits
    gradients = max((row.bytes for row in timed_jobs(findings)), default=0)
    paragraphs = ["Allreduces of many sizes, without training: the median of the repetitions, and their quartiles."]
    tables = [links_table(fits)] if fits else []
    pictures = [link_figures(fits, gradients)]
    pictures.append([residuals_figure(fit, gradients) for fit in fits if fit.link])
    notes = list(dict.fromkeys(measured_links(fit.link) for fit in fits if fit.link))
    notes += [*_compare_with_mpi(findings), *_cost_of_one_worker(findings)]
    if any(link.overhead == 0 for fit in fits if fit.link and fit.path != "mpi" for link in fit.link.known):
        notes.append(
            "Where the cost of a call is 0, the measured numbers of workers do not separate it from that of its "
            "messages; all of it is attributed to the messages, so that predictions for more workers are too slow "
            "rather than too fast."
        )
    tables.append(allreduce_table(findings))
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _compare_with_mpi(findings: Findings) -> List[str]:
    """Compare the allreduce time of the gradients with Horovod and with plain MPI, by their fitted links."""
    plain = next((fit for fit in findings.link_fits if fit.path == "mpi"), None)
    sent = {row.workers: row.bytes for row in sorted(timed_jobs(findings), key=lambda row: row.bytes)}
    notes = []
    for fit in findings.link_fits:
        workers = max(sent.keys() & set(fit.workers).intersection(plain.workers if plain else ()), default=0)
        if workers and fit is not plain and fit.link and plain and plain.link:
            own, other = (1000 * link.seconds(workers, sent[workers]) for link in (fit.link, plain.link))
            notes.append(
                f"According to the fitted links, the gradients of {workers} workers ({size(sent[workers])}) take "
                f"{number(own, 2)} ms with {fit.name} and {number(other, 2)} ms with plain MPI, a ratio of "
                f"{number(own / other, 2)}."
            )
    return notes


def _cost_of_one_worker(findings: Findings) -> List[str]:
    """Describe the cost of a Horovod call with a single worker, which has nothing to communicate."""
    least = {
        fit.name: min((row.median for row in fit.measurements if row.workers == 1), default=0.0)
        for fit in findings.link_fits
        if fit.path != "mpi"
    }
    return [
        f"A call of a single worker, which sends nothing, takes at least {milliseconds(seconds, 3)} ms with {name}."
        for name, seconds in least.items()
        if seconds
    ]
