"""Encoding of a text in the vocabulary of a model that was trained on another text."""

from typing import NamedTuple

import numpy as np

from lstm_dist.data.corpus import Corpus, Vocabulary
from lstm_dist.data.token_file import Tokens, token_type

_BLOCK = 2**22  # tokens encoded at a time


class EncodedText(NamedTuple):
    """A text in a model's vocabulary.

    Attributes:
        tokens: of the text.
        unknown_count: number of characters that are not in the vocabulary.
        unknown_characters: the distinct ones of these.
        keeps_unknown: whether they are encoded as UNKNOWN instead of left out.
    """

    tokens: Tokens
    unknown_count: int = 0
    unknown_characters: str = ""
    keeps_unknown: bool = True

    def describe_unknown(self) -> str:
        """Return one line about the unknown characters; empty if there are none."""
        if not self.unknown_count:
            return ""
        distinct = len(self.unknown_characters)
        shown = self.unknown_characters[:10] + ("..." if distinct > 10 else "")
        treatment = "encoded as its unknown character" if self.keeps_unknown else "left out"
        return (
            f"{self.unknown_count:,} characters ({distinct:,} distinct: {shown}) are not in the model's vocabulary: "
            f"{treatment}"
        )


def reencode(corpus: Corpus, vocabulary: Vocabulary) -> EncodedText:
    """Return the text in another vocabulary's tokens; unchanged if the vocabularies are equal.

    Characters that `vocabulary` lacks become its UNKNOWN if it has one, and are left out otherwise.
    """
    if corpus.vocabulary == vocabulary:
        return EncodedText(corpus.tokens)
    characters = corpus.vocabulary.characters
    indices, unknown = [vocabulary.characters.find(character) for character in characters], vocabulary.unknown
    is_unknown = np.array(indices) < 0
    table = np.where(is_unknown, unknown or 0, indices).astype(token_type(len(vocabulary)))
    counts, encoded = np.zeros(len(characters), dtype=np.int64), []
    for start in range(0, len(corpus.tokens), _BLOCK):
        block = np.asarray(corpus.tokens[start : start + _BLOCK])
        counts += np.bincount(block, minlength=len(characters))
        encoded.append(table[block if unknown is not None else block[~is_unknown[block]]])
    missing = "".join(characters[token] for token in np.flatnonzero(is_unknown & (counts > 0)))
    return EncodedText(np.concatenate(encoded), int(counts[is_unknown].sum()), missing, unknown is not None)
