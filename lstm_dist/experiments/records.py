"""JSON records of experiments, validated when they are read."""

import json
from pathlib import Path
from typing import Any, Type, TypeVar

from pydantic import BaseModel, ValidationError

from lstm_dist.errors import ExitStatus, UserError


class Record(BaseModel, frozen=True):
    """A JSON object; unknown fields are ignored, so that later versions can add fields."""


_Row = TypeVar("_Row", bound=Record)


def read_row(path: Path, record: Type[_Row]) -> _Row:
    """Read one file with a record of this class.

    Raises:
        UserError: if the file cannot be read or is invalid; the message names it.
    """
    try:
        return record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check its permissions", ExitStatus.NO_INPUT
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise damaged_file(path, f"{field}: {first['msg']}" if field else first["msg"]) from None


def read_json(path: Path) -> Any:
    """Read a JSON file of an experiment.

    Raises:
        UserError: if it is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged_file(path, str(error)) from None


def damaged_file(path: Path, reason: str) -> UserError:
    """Return the error for a record file that is invalid for this reason."""
    line = " ".join(reason.split())
    return UserError(f"{path}: is damaged ({line}); delete it and measure again", ExitStatus.BAD_DATA)
