"""Mistakes of the user, and how a program ends on one: with one line, not with a traceback."""

import io
import os
import signal
import sys
import unicodedata
from contextlib import contextmanager
from typing import Iterator

USER_ERROR_STATUS = 2


class UserError(Exception):
    """A mistake in what the user gave: its message is one line that names the flag or file and says what to do."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a whole program: a UserError becomes its line and status 2, Ctrl-C status 130, `| head` status 141.

    The text is Chinese and the locale of a batch job may be C: both outputs are UTF-8, as all files are.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        yield
    except UserError as error:
        print_error(str(error))
        sys.exit(USER_ERROR_STATUS)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has left. What is still in the buffer has nowhere to go when Python flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def print_error(message: str) -> None:
    """One write a line, because the ranks of a job share their launcher's stderr."""
    sys.stderr.write(f"error: {printable(message)}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """The text with its control characters escaped: a terminal would obey them, and a line end would make two lines."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text)
