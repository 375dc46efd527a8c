"""User errors and exit statuses: a program reports a user error in one line, without a traceback."""

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
    """Exit statuses of a process, from BSD's sysexits.h where it defines one; launch/README.md lists them."""

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
    DIVERGED = 80


_ESCAPED = ("Cc", "Cs", "Zl", "Zp")  # categories: controls, half characters, ends of lines and of paragraphs
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # embeddings, overrides, isolates


class UserError(Exception):
    """An invalid input of the user; the message is one line that names the flag or file and says what to do.

    Attributes:
        status: the exit status of the process.
    """

    def __init__(self, message: str, status: ExitStatus = ExitStatus.USAGE) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Wrap a whole program: a UserError becomes one line and its status, Ctrl-C status 130, `| head` status 141.

    Set stdout and stderr to UTF-8, because the text is Chinese and the locale of a batch job may be C.
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would end the report of the first
        print_error("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader has closed the pipe. Redirect stdout, because Python's flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception:  # a bug of this package
        traceback.print_exc()
        raise SystemExit(int(ExitStatus.INTERNAL)) from None


def print_error(message: str) -> None:
    """Write the error line in a single write, because the ranks of a job share their launcher's stderr."""
    sys.stderr.write(f"error: {printable(message)}\n")
    sys.stderr.flush()


def print_warning(message: str) -> None:
    """Write a line to stderr that is not an error, in a single write."""
    sys.stderr.write(f"{printable(message)}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that none controls a terminal, ends a line or reorders one.

    Everything else is printed as it is, also characters without a glyph of their own: joiners and combining marks are
    parts of Persian or Hindi words and of emoji. Of the marks for right-to-left text, those that act beyond their
    neighbours are escaped, because they would reorder the rest of a line, with its file names and numbers.
    """
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _ESCAPED or c in _REORDERING else c for c in text)
