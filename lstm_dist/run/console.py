"""The console of the root: where its lines go, and writing that does not block the job."""

import contextlib
import errno
import os
import select
import sys
from pathlib import Path
from typing import IO, Iterator, NamedTuple

from lstm_dist.errors import ExitStatus, UserError

_READER_PATIENCE = 5.0  # seconds to wait for the reader of the output
_PIPE_BUF = 4096  # bytes that a write to a ready pipe accepts without blocking


class Console(NamedTuple):
    """The output stream, and whether it is a terminal."""

    stream: IO[str]
    is_terminal: bool


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Wrap code that writes `path`.

    Raises:
        UserError: if writing fails; the run ends, because its results would be lost.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space and continue with --resume",
            ExitStatus.CANNOT_WRITE,
        ) from None


def open_console() -> Console:
    """Return the console of this process.

    horovodrun's pipes drop carriage returns, so its caller may name the terminal in LSTM_DIST_TERMINAL.
    """
    terminal = os.environ.get("LSTM_DIST_TERMINAL")
    if terminal:
        try:
            # Without O_TRUNC, because it may be a file; with O_NOCTTY, because the terminal belongs to the caller.
            number = os.open(terminal, os.O_WRONLY | os.O_NOCTTY)
        except OSError:
            pass  # this host is not the launcher's
        else:
            if os.isatty(number):
                return Console(open(number, "w", encoding="utf-8", errors="backslashreplace"), True)
            os.close(number)
    return Console(sys.stdout, sys.stdout.isatty())


def write_in_time(stream: IO[str], text: str) -> bool:
    """Write with a timeout, and return whether it succeeded: a launcher that stops reading must not block the job.

    A terminal has no timeout: a user may pause it until the watchdog ends the job, or close it.

    Raises:
        BrokenPipeError: if the reader of a pipe is gone.
        UserError: if the output is a file and the write fails.
    """
    try:
        if stream.isatty():
            stream.write(text)
            stream.flush()
            return True
        data = text.encode()
        for start in range(0, len(data), _PIPE_BUF):
            _, ready, _ = select.select([], [stream.fileno()], [], _READER_PATIENCE)
            if not ready:
                return False
            os.write(stream.fileno(), data[start : start + _PIPE_BUF])
    except OSError as error:
        if error.errno == errno.EIO:  # the terminal was closed; if that concerns the run, it also gets a signal
            return False
        if error.errno == errno.EPIPE:
            raise
        with written(Path("standard output")):
            raise
    return True
