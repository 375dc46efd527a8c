"""The bytes that a worker sends in a step of weak scaling, of which more workers have more characters in a batch."""

from pathlib import Path
from typing import Dict

import numpy as np

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.model.exchange_size import exchanged_numbers
from lstm_dist.scaling.experiment_text import text_length
from lstm_dist.scaling.prediction import WORKERS
from lstm_dist.scaling.records import Experiment
from lstm_dist.train.exchange_plan import ExchangePlan


def weak_bytes(experiment: Experiment, corpus: Path) -> Dict[int, int]:
    """Return the bytes for each of WORKERS: those that their job would plan for the text of the timed jobs.

    Where the text is too short for one batch, they are those of all parameters, the most that a worker sends.
    """
    sizes = experiment.vocab_size, experiment.hidden_size, experiment.layers
    tokens, dense = _tokens(experiment, corpus), exchanged_numbers(*sizes, None)
    found = dict.fromkeys(WORKERS, experiment.bytes)
    for workers in WORKERS:
        streams = workers * experiment.streams
        if streams * experiment.seq_len <= len(tokens):
            plan = ExchangePlan.choose(tokens, workers, streams, experiment.seq_len, *sizes)
            found[workers] = round(experiment.bytes * plan.numbers / dense)
    return found


def _tokens(experiment: Experiment, corpus: Path) -> np.ndarray:
    """Return the tokens of the text; none if it is missing or is not that of these settings.

    In folders of an earlier version it is one worker's text, repeated, so that parts that have occurred are left out.
    """
    text = corpus.read_bytes().decode(errors="replace") if corpus.is_file() else ""
    length = text_length(experiment.streams, experiment.steps, experiment.seq_len)
    parts = [text[start : start + length] for start in range(0, len(text), length)]
    vocabulary = Vocabulary(text)
    if len(vocabulary) != experiment.vocab_size:
        return np.zeros(0, np.int32)
    return vocabulary.encode("".join(dict.fromkeys(parts)))
