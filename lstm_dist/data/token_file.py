"""The token file of a prepared corpus, of which only the windows of one step are in memory.

It is read by position instead of memory-mapped: an access to a mapped file loads up to two megabytes around it, and
releasing these takes ten times as long as reading the few hundred bytes of a window.
"""

import io
import os
import weakref
from pathlib import Path
from typing import Any, Union

import numpy as np

from lstm_dist.errors import ExitStatus, UserError

TOKENS = "tokens.npy"


def token_type(vocab_size: int) -> np.dtype:
    """Return the smallest unsigned little-endian type that holds every token."""
    return np.dtype("<u1" if vocab_size <= 2**8 else "<u2" if vocab_size <= 2**16 else "<u4")


def npy_header(dtype: np.dtype, chars: int) -> bytes:
    """Return the header of a .npy file of `chars` tokens."""
    file = io.BytesIO()
    facts = {"descr": dtype.str, "fortran_order": False, "shape": (chars,)}
    np.lib.format.write_array_header_1_0(file, facts)  # type: ignore[no-untyped-call]
    return file.getvalue()


def damaged(folder: Path, what: str, flag: str = "--corpus") -> UserError:
    """Return the error for a damaged prepared corpus."""
    return UserError(f"{flag} {folder}: is damaged, {what}: prepare it again with jobs/prepare.py", ExitStatus.BAD_DATA)


class _OpenFile:
    """An open file, unaffected by renaming or deletion, that is closed when no reference to it remains."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


class TokenFile:
    """Tokens in a file. A slice is a TokenFile and reads nothing; conversion to a numpy array reads all tokens."""

    def __init__(self, file: _OpenFile, folder: Path, vocab_size: int, first: int, count: int, flag: str) -> None:
        """Wrap an open file: `first` is the byte offset of the first token, `count` the number of tokens."""
        self._file, self._folder, self._vocab_size = file, folder, vocab_size
        self._first, self._count, self._flag = first, count, flag
        self.dtype = token_type(vocab_size)

    @classmethod
    def open(cls, folder: Path, vocab_size: int, chars: int, flag: str = "--corpus") -> "TokenFile":
        """Open the token file of a folder and check its size and header.

        Raises:
            UserError: naming the folder, when they do not match `vocab_size` and `chars`.
        """
        header = npy_header(token_type(vocab_size), chars)
        try:
            file = _OpenFile(folder / TOKENS)
            size, found = os.fstat(file.descriptor).st_size, os.pread(file.descriptor, len(header), 0)
        except OSError as error:
            raise damaged(folder, f"{TOKENS} cannot be read ({error.strerror})", flag) from None
        if size != len(header) + chars * token_type(vocab_size).itemsize or found != header:
            raise damaged(folder, f"{TOKENS} has a wrong size or header", flag)
        return cls(file, folder, vocab_size, len(header), chars, flag)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: slice) -> "TokenFile":
        start, stop, step = index.indices(self._count)
        if step != 1:
            raise IndexError("slices of a token file have step 1")
        first = self._first + start * self.dtype.itemsize
        return TokenFile(self._file, self._folder, self._vocab_size, first, max(0, stop - start), self._flag)

    def __array__(self, *_: Any) -> np.ndarray:
        tokens: np.ndarray = self.read_sequences(np.zeros(1, np.int64), self._count)[0]
        return tokens

    def read_sequences(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Read `length` tokens from each of `starts` on.

        Returns:
            (len(starts), length).

        Raises:
            IndexError: for a sequence outside this slice; what follows it in the file may be the validation set.
            UserError: naming the folder, when it cannot be read or a token is not in the vocabulary.
        """
        if len(starts) and (starts.min() < 0 or starts.max() + length > self._count):
            raise IndexError(f"{length} tokens from {starts.max()} on, of {self._count}")
        found = np.empty((len(starts), length), self.dtype)
        try:
            for row, start in zip(found, starts.tolist()):
                _read_into(row.view(np.uint8), self._file.descriptor, self._first + start * self.dtype.itemsize)
        except OSError as error:
            raise damaged(self._folder, f"{TOKENS} cannot be read ({error.strerror})", self._flag) from None
        except EOFError:
            raise damaged(self._folder, f"{TOKENS} has become shorter", self._flag) from None
        if found.size and found.max() >= self._vocab_size:
            raise damaged(self._folder, f"{TOKENS} contains tokens outside the vocabulary", self._flag)
        return found


Tokens = Union[np.ndarray, TokenFile]


def read_sequences(tokens: Tokens, starts: np.ndarray, length: int) -> np.ndarray:
    """Return a copy of `length` tokens from each of `starts` on, as (len(starts), length)."""
    if isinstance(tokens, TokenFile):
        return tokens.read_sequences(starts, length)
    found: np.ndarray = tokens[starts[:, None] + np.arange(length)]
    return found


def _read_into(buffer: np.ndarray, descriptor: int, offset: int) -> None:
    """Fill `buffer` from `offset` of the file; raise EOFError if the file is too short."""
    while buffer.size:
        count = os.preadv(descriptor, [buffer.data], offset)
        if not count:
            raise EOFError
        buffer, offset = buffer[count:], offset + count
