"""Copies in UTF-8 of texts in other encodings, so that any number of ranks can read them in chunks.

UTF-8 tells at every byte whether a character begins there. Most other encodings do not, so one rank decodes such a text
from its beginning. This takes the time of that rank and, until the corpus is complete, the disk space of the copy.
"""

import codecs
from pathlib import Path
from typing import Iterator

from lstm_dist.data.text_chunks import TextFile, changed
from lstm_dist.encoding import undecodable, without_mark
from lstm_dist.errors import ExitStatus, UserError

_BLOCK = 2**22  # bytes decoded at a time


def transcode(file: TextFile, folder: Path) -> TextFile:
    """Write a copy of a text in UTF-8, without byte order mark, and return it.

    Args:
        file: in any encoding.
        folder: is created for the copy, which gets the name of the text.

    Raises:
        UserError: naming the text, if it is in another encoding, was changed, or cannot be copied.
    """
    copy = folder / file.path.name
    try:
        folder.mkdir(parents=True)
        with copy.open("wb") as target:
            for text in _decoded(file):
                target.write(text.encode("utf-8"))
        if TextFile.stat(file.path, file.codec) != file:
            raise changed(file)
        return TextFile.stat(copy)
    except OSError as error:
        raise UserError(
            f"TEXT {file.path}: cannot be copied to {folder} ({error.strerror})", ExitStatus.CANNOT_WRITE
        ) from None


def _decoded(file: TextFile) -> Iterator[str]:
    """Yield the characters of a text, one part at a time."""
    decoder, offset, block = codecs.getincrementaldecoder(file.codec)(), 0, b"."
    with file.path.open("rb") as source:
        while block:
            begins, block = offset == 0, source.read(_BLOCK)
            offset += len(block)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:  # in this block, or in what the decoder kept of the one before
                bad = offset - len(error.object) + error.start
                raise undecodable(f"TEXT {file.path}", file.codec, bad, error.object, error.start) from None
            except UnicodeError as error:
                raise UserError(f"TEXT {file.path}: not {file.codec} ({error})", ExitStatus.BAD_DATA) from None
            yield without_mark(text) if begins else text
