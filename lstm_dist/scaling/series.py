"""Divide the jobs of an experiment into series: jobs that differ only in mode, number of workers and streams."""

from typing import Dict, List, Sequence

from lstm_dist.scaling.records import Experiment, Rows
from lstm_dist.scaling.variation import Variation, describe


def split_series(rows: Rows) -> List[Rows]:
    """Return the rows of each series with the settings of its jobs, and its name if there are several.

    All allreduces belong to every series. The first series has the settings of the experiment, if it has been measured.
    """
    found = sorted({row.varied for row in rows.train_rows} or {Variation()}, key=_order)
    experiments = [rows.experiment.varied(varied) for varied in found]
    settings = [factor_settings(experiment) for experiment in experiments]
    factors = varying(settings)
    return [
        rows._replace(
            experiment=experiment,
            train_rows=[row for row in rows.train_rows if row.varied == varied],
            series=describe(setting, factors),
            on_several_hosts=any(row.hosts > 1 for row in rows.train_rows),
        )
        for varied, experiment, setting in zip(found, experiments, settings)
    ]


def factor_settings(experiment: Experiment) -> Dict[str, object]:
    """Return the settings of a series that a sweep can vary."""
    return experiment.model_dump(include=set(Variation.model_fields))


def varying(settings: Sequence[Dict[str, object]]) -> List[str]:
    """Return the factors that have several values in these settings."""
    return [factor for factor in Variation.model_fields if len({setting[factor] for setting in settings}) > 1]


def _order(varied: Variation) -> List[str]:
    """Return what sorts as the words of a name do: the experiment's own first, then by value."""
    values = (varied.controller, varied.threads, varied.workers_per_node, varied.wire_dtype)
    return [f"{value or '':>9}" for value in values]
