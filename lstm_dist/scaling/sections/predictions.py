"""Section about predictions from compute and link."""

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import capitalized, listed
from lstm_dist.scaling import figures
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.sections.distances import assumed_links
from lstm_dist.scaling.tables.forecasts import comparison_table, forecast_table


def predictions(findings: Findings) -> Section:
    """Build the section."""
    section = Section("prediction", "Predictions from compute and link", [])
    paths = dict.fromkeys(mode.link_fit.name for mode in findings.modes if mode.link_fit and mode.steps)
    if not paths:
        reason = "Nothing is predicted: this needs timed steps, and a fitted link of the path that the jobs used."
        return section._replace(paragraphs=[reason])
    paragraphs = [
        "A predicted step is the own part of the slowest worker (data, compute, update), followed by the communication "
        f"according to the link of {listed(list(paths))}. A measured step that takes longer contains a cost "
        "that neither of them includes. A step sends the gradients; of W_x, only the rows of the characters that occur "
        "in the batch."
    ]
    tables = [comparison_table(findings.modes)]
    pictures, notes = [], []
    forecasts = [(mode, mode.forecast) for mode in findings.modes if mode.forecast]
    if forecasts:
        links = [mode.link_fit.link for mode, _ in forecasts if mode.link_fit and mode.link_fit.link]
        assumed = dict.fromkeys(map(assumed_links, links))
        tables.append(forecast_table([forecast for _, forecast in forecasts]))
        pictures = [[figures.forecast_figure(mode, forecast) for mode, forecast in forecasts]]
        notes.append(
            f"{capitalized(figures.PREDICTED)}: {'; '.join(assumed)}. "
            "In weak scaling, what they send is counted in batches of the text of the timed jobs, and is that of all "
            "parameters where that text is shorter than a batch; it is never less than what was measured. The "
            "own part is that of the measured workers, although a larger batch takes longer to read and updates more "
            "rows. "
            "The lower edge of the band assumes that the cost of a call besides its bytes does not depend on the "
            "number of workers (and, in weak scaling, that each worker has a machine to itself); the upper edge "
            "assumes that all of it is a cost per message. Strong scaling ends where every worker has one stream."
        )
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)
