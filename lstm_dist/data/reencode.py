"""A text in the tokens of a model that was trained on another one."""

from typing import NamedTuple

import numpy as np

from lstm_dist.data.corpus import Corpus, Vocabulary
from lstm_dist.data.token_file import Tokens, token_type

_PIECE = 2**22  # tokens that are translated at a time


class Reading(NamedTuple):
    """What a model reads of a text.

    Attributes:
        tokens: of the model.
        unknown: how many characters it does not know.
        which: the distinct ones among these.
        is_complete: whether they are among the tokens, as the model's sign for unknown ones, and not left out.
    """

    tokens: Tokens
    unknown: int = 0
    which: str = ""
    is_complete: bool = True

    def remark(self) -> str:
        """One line about the unknown characters; empty where there are none."""
        if not self.unknown:
            return ""
        shown = self.which[:10] + ("..." if len(self.which) > 10 else "")
        what = "read as its sign for unknown ones" if self.is_complete else "left out"
        return f"{self.unknown:,} characters ({len(self.which):,} distinct: {shown}) are unknown to the model: {what}"


def translate(corpus: Corpus, vocabulary: Vocabulary) -> Reading:
    """The text in another vocabulary's tokens; as it is where the vocabularies are equal.

    Characters that the other does not know become its UNKNOWN if it has that, and are left out if not.
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
