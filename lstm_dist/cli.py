"""Command-line parsing with one-line errors that name the flag and suggest the nearest known one."""

import argparse
import difflib
import os
import unicodedata
from pathlib import Path
from typing import Any, NoReturn, Optional, Sequence

from lstm_dist.errors import UserError

_LONGEST_NAME, _LONGEST_PATH = 255, 4000  # bytes; Linux accepts 4095, and files in a folder need some of them


class TeachingParser(argparse.ArgumentParser):
    """An ArgumentParser that raises one-line UserErrors and suggests the nearest flag for a misspelt one.

    Arguments with `type=Path` are checked by `possible_path`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register("type", Path, _path_argument)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the whole usage."""
        raise UserError(message[len("argument ") :] if message.startswith("argument ") else message)

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


def possible_path(text: str) -> Path:
    """Return `text` as a path if a file can have this name; ~ is the home directory, as in a shell.

    Raises:
        ValueError: if it is empty, too long, or contains a control character.
    """
    if not text:
        raise ValueError("Input should not be empty")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("Input should not contain a null byte, a line end or another control character")
    path = Path(os.path.expanduser(text))  # a shell does not expand it in --flag=~/path, nor does a file
    longest = max(len(os.fsencode(name)) for name in ("", *path.parts))
    if longest > _LONGEST_NAME:
        raise ValueError(f"Input should have names of at most {_LONGEST_NAME} bytes, one has {longest:,}")
    length = len(os.fsencode(os.path.abspath(path)))
    if length > _LONGEST_PATH:
        raise ValueError(f"Input should have at most {_LONGEST_PATH:,} bytes with the folders above, it has {length:,}")
    return path


def _path_argument(text: str) -> Path:
    try:
        return possible_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).replace("Input should", "should")) from None


def suggestion(name: str, known: Any) -> str:
    """Return the end of a message that suggests the nearest known name; empty if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""
