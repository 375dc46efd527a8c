"""The text of the timed jobs. Every job reads the beginning that its streams need, so that all do the same steps."""

import random

from lstm_dist.train.config import RunConfig
from lstm_dist.train.text import load_text


def text_length(streams: int, steps: int, seq_len: int) -> int:
    """Return the number of characters that gives each of `streams` streams `steps` windows."""
    return streams * (steps * seq_len + 1)


def experiment_text(config: RunConfig, chars: int, workers: int) -> str:
    """Return the text of `workers` workers in weak scaling, of `chars` characters each: the corpus' beginning.

    A corpus that is too short is repeated. All jobs have the vocabulary of one worker's text, and so the same model:
    characters that it lacks are replaced by other ones of it, which hardly changes how many a batch has.
    """
    corpus = load_text(config, workers * chars).text
    known = sorted(set(corpus[:chars]))
    lacking = set(corpus).difference(known)
    return _repeat(corpus.translate({ord(c): known[ord(c) % len(known)] for c in lacking}), workers * chars)


def _repeat(text: str, chars: int) -> str:
    """Return this many characters: `text`, and rotations of it by random numbers of characters.

    Without the rotations, workers would have the same characters in the same step if the lengths of text and stream
    have a common multiple, and the batch of all of them would have no more than that of one.
    """
    places = random.Random(0)  # noqa: S311 - no secret
    starts = [0, *(places.randrange(len(text)) for _ in range(chars // len(text)))]
    return "".join(text[start:] + text[:start] for start in starts)[:chars]
