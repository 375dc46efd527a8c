"""JSON records of experiments, validated when they are read."""

from pathlib import Path
from typing import Type, TypeVar

from pydantic import BaseModel
from pydantic import ValidationError as Invalid

from lstm_dist.errors import ExitStatus, UserError


class Record(BaseModel, frozen=True):
    """A JSON object; unknown fields are ignored, so that later versions can add fields."""


_Row = TypeVar("_Row", bound=Record)


def read_row(path: Path, kind: Type[_Row]) -> _Row:
    """Read one record file.

    Raises:
        UserError: if the file cannot be read or is invalid; the message names it.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); look at it", ExitStatus.NO_INPUT) from None
    except Invalid as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{where}: {first['msg']}" if where else first["msg"]) from None


def _damaged(path: Path, what: str) -> UserError:
    line = " ".join(what.split())
    return UserError(f"{path}: is damaged ({line}); delete it and measure again", ExitStatus.BAD_DATA)
