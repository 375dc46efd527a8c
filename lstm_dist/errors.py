"""Mistakes of the user, and how a program ends on one: with one line, not with a traceback."""

import sys
from contextlib import contextmanager
from typing import Iterator

USER_ERROR_STATUS = 2


class UserError(Exception):
    """A mistake in what the user gave: its message is one line that names the flag or file and says what to do."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a whole program: a UserError becomes its line and status 2, Ctrl-C becomes status 130."""
    try:
        yield
    except UserError as error:
        print_error(str(error))
        sys.exit(USER_ERROR_STATUS)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(130)


def print_error(message: str) -> None:
    """One write a line, because the ranks of a job share their launcher's stderr."""
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
