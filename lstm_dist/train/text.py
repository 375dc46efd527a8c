"""The text that the settings of a run name."""

from typing import Optional

from lstm_dist.data.corpus import Corpus
from lstm_dist.data.token_dataset import load
from lstm_dist.train.config import RunConfig


def load_text(settings: RunConfig, max_chars: Optional[int] = None) -> Corpus:
    """Read the corpus of a run; `max_chars` replaces the number of characters that the settings keep.

    Raises:
        UserError: naming --corpus, if it is not readable.
    """
    kept = settings.kept_chars if max_chars is None else max_chars
    paths = settings.corpus or ()
    return load(paths, kept, settings.max_corpus_bytes, settings.encoding, settings.keep_newlines)
