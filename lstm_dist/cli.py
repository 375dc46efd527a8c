"""Command-line parsing with one-line errors that name the flag and suggest the nearest known one."""

import argparse
import difflib
from typing import Any, NoReturn, Optional, Sequence

from lstm_dist.errors import UserError


class TeachingParser(argparse.ArgumentParser):
    """An ArgumentParser that raises one-line UserErrors and suggests the nearest flag for a misspelt one."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the whole usage."""
        raise UserError(message.replace("argument --", "--"))

    def parse(self, argv: Optional[Sequence[str]]) -> argparse.Namespace:
        """Parse all of `argv`.

        Raises:
            UserError: for an unknown flag; the message suggests the nearest known one.
        """
        known, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].split("=")[0]
            raise UserError(
                f"{flag}: no such flag{suggestion(flag, self._option_string_actions)}; --help lists them all"
            )
        return known


def suggestion(name: str, known: Any) -> str:
    """Return the end of a message that suggests the nearest known name; empty if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""
