"""Mistakes of the user, and how a program ends on one: with one line and a status, not with a traceback."""

import io
import os
import signal
import sys
import traceback
import unicodedata
from contextlib import contextmanager
from enum import IntEnum
from typing import Iterator


class ExitStatus(IntEnum):
    """How a process ends; the numbers are those of BSD's sysexits.h where it has one. The README lists them."""

    FINISHED = 0
    USAGE = 2
    BAD_DATA = 65
    NO_INPUT = 66
    INTERNAL = 70
    CANNOT_CREATE = 73
    CANNOT_WRITE = 74
    STOPPED = 75
    PEER_LOST = 76
    BAD_CONFIG = 78
    NOT_FINITE = 79


class UserError(Exception):
    """A mistake in what the user gave: its message is one line that names the flag or file and says what to do.

    Attributes:
        status: what the process ends with.
    """

    def __init__(self, message: str, status: ExitStatus = ExitStatus.USAGE) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a whole program: a UserError becomes its line and status, Ctrl-C status 130, `| head` status 141.

    The text is Chinese and the locale of a batch job may be C: both outputs are UTF-8, as all files are.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        yield
    except UserError as error:
        print_error(str(error))
        sys.exit(int(error.status))
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has left. What is still in the buffer has nowhere to go when Python flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception:  # a mistake of ours
        traceback.print_exc()
        raise SystemExit(int(ExitStatus.INTERNAL)) from None


def print_error(message: str) -> None:
    """One write a line, because the ranks of a job share their launcher's stderr."""
    sys.stderr.write(f"error: {printable(message)}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """The text with its control characters escaped: a terminal would obey them, and a line end would make two lines."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text)
