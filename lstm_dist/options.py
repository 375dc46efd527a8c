"""Command lines that are declared as pydantic dataclasses: one field is one flag and one entry of `--help`.

pydantic checks types and ranges; its errors are reported in terms of the flag.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Type, TypeVar, Union

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import Literal, get_args, get_origin

from lstm_dist.errors import ExitStatus, UserError

T = TypeVar("T")

_METAVARS = {Path: "PATH", float: "X", int: "N", str: "TEXT"}


def option(default: Any, description: str, group: str = "", **extra: Any) -> Any:
    """Declare a field that is a command-line flag.

    Args:
        default: the default value.
        description: its help.
        group: heading in `--help`.
        **extra: limits, which pydantic checks (ge, gt, le, lt, allow_inf_nan), and anything else as metadata;
            `metavar` is the name of its value in the help, by default that of its type.
    """
    limits = {name: extra.pop(name) for name in ("ge", "gt", "le", "lt", "allow_inf_nan") if name in extra}
    return Field(default, description=description, json_schema_extra={"group": group, **extra}, **limits)


def fields_of(options: Type[Any]) -> Dict[str, FieldInfo]:
    """Return the fields of a pydantic dataclass by name."""
    fields: Dict[str, FieldInfo] = options.__pydantic_fields__
    return fields


def metadata_of(field: FieldInfo, name: str, default: Any) -> Any:
    """Return an `extra` of `option`."""
    extra = field.json_schema_extra
    return extra.get(name, default) if isinstance(extra, dict) else default


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def shown(value: Any) -> str:
    """Return a value as text for a message; quotes make an empty one visible."""
    return (value or "''") if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def add_options(parser: argparse.ArgumentParser, options: Type[Any]) -> None:
    """Add a flag for every field; only those that are given appear in the parsed namespace."""
    groups: Dict[str, Any] = {"": parser}
    for name, field in fields_of(options).items():
        group = metadata_of(field, "group", "")
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        default = (
            ""
            if field.is_required() or field.default is None or field.default is False
            else f" (default {shown(field.default)})"
        )
        # Escape percent signs, which argparse would read as a format.
        text = (str(field.description) + default).replace("%", "%%")
        kind = _without_optional(field.annotation)
        common: Dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            groups[group].add_argument(flag(name), action="store_true", **common)
            continue
        common["required"] = field.is_required()
        if get_origin(kind) is list:
            common["action"], kind = "append", get_args(kind)[0]
        metavar = metadata_of(field, "metavar", "") or _metavar(kind)
        groups[group].add_argument(flag(name), metavar=metavar, **common)


def validated(options: Type[T], values: Mapping[str, Any], where: Callable[[str], str] = lambda _: "") -> T:
    """Return the options with these values.

    Args:
        options: the pydantic dataclass.
        values: by field name.
        where: returns the file in which a field was given; empty if on the command line.

    Raises:
        UserError: naming the flag, its value and, if it was given in one, the file.
    """
    try:
        return options(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        message = first["msg"].replace("Value error, ", "").replace("Input should", "should")
        file = where(name)
        is_switch = fields_of(options)[name].annotation is bool and values.get(name) is True
        value = values.get(name)
        if isinstance(value, list) and len(value) == 1 and not file:  # a flag that may be repeated was given once
            value = value[0]
        given = flag(name) if is_switch else f"{flag(name)} {shown(value)}"
        status = ExitStatus.BAD_CONFIG if file else ExitStatus.USAGE
        raise UserError(f"{given}: {message}{f' (in {file})' if file else ''}", status) from None


def _without_optional(annotation: Any) -> Any:
    """Return X for Optional[X], and any other type unchanged."""
    if get_origin(annotation) is Union:
        kinds: List[Any] = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0]
    return annotation


def _metavar(kind: Any) -> str:
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else _METAVARS[kind]
