"""Translation of a text into the tokens of a model that was trained on another text."""

from typing import NamedTuple

import numpy as np

from lstm_dist.data.corpus import Corpus, Vocabulary
from lstm_dist.data.token_file import Tokens, token_type

_PIECE = 2**22  # tokens translated at a time


class Reading(NamedTuple):
    """A text as a model reads it.

    Attributes:
        tokens: in the model's vocabulary.
        unknown: number of characters that are not in the vocabulary.
        which: the distinct unknown characters.
        is_complete: whether unknown characters are kept as UNKNOWN instead of left out.
    """

    tokens: Tokens
    unknown: int = 0
    which: str = ""
    is_complete: bool = True

    def remark(self) -> str:
        """Return one line about the unknown characters; empty if there are none."""
        if not self.unknown:
            return ""
        shown = self.which[:10] + ("..." if len(self.which) > 10 else "")
        what = "read as its sign for unknown ones" if self.is_complete else "left out"
        return f"{self.unknown:,} characters ({len(self.which):,} distinct: {shown}) are unknown to the model: {what}"


def translate(corpus: Corpus, vocabulary: Vocabulary) -> Reading:
    """Return the text in another vocabulary's tokens; unchanged if the vocabularies are equal.

    Characters that `vocabulary` lacks become its UNKNOWN if it has one, and are left out otherwise.
    """
    if corpus.vocabulary == vocabulary:
        return Reading(corpus.tokens)
    characters = corpus.vocabulary.characters
    places, unknown = [vocabulary.characters.find(character) for character in characters], vocabulary.unknown
    is_unknown = np.array(places) < 0
    table = np.where(is_unknown, unknown or 0, places).astype(token_type(len(vocabulary)))
    counts, read = np.zeros(len(characters), dtype=np.int64), []
    for start in range(0, len(corpus.tokens), _PIECE):
        piece = np.asarray(corpus.tokens[start : start + _PIECE])
        counts += np.bincount(piece, minlength=len(characters))
        read.append(table[piece if unknown is not None else piece[~is_unknown[piece]]])
    which = "".join(characters[token] for token in np.flatnonzero(is_unknown & (counts > 0)))
    return Reading(np.concatenate(read), int(counts[is_unknown].sum()), which, unknown is not None)
