"""The folder of an experiment, with settings that every command that continues it must share."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, Collection, Mapping, Optional

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import replace_text

_NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})


def create_or_continue(
    file: Path,
    settings: Mapping[str, Any],
    contents: str,
    defaults: Mapping[str, Any] = _NO_DEFAULTS,
    needed: Optional[Collection[str]] = None,
) -> None:
    """Create the folder of `file` with these settings, or check that its stored settings are the same.

    Args:
        file: JSON file of the settings.
        settings: settings common to everything in the folder.
        contents: description of the folder's contents, for the error message.
        defaults: values for settings that are missing from the file.
        needed: the settings that have to be the same; by default, all of them.

    Raises:
        UserError: if the folder has other settings or contents, or cannot be written; the message names --out.
    """
    out = file.parent
    try:
        if not file.exists():
            if out.exists() and any(out.iterdir()):
                raise UserError(f"--out {out}: holds other files: give a new folder", ExitStatus.CANNOT_CREATE)
            out.mkdir(parents=True, exist_ok=True)
            write_json(file, settings)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})", ExitStatus.CANNOT_CREATE) from None
    try:
        stored = {**defaults, **json.loads(file.read_bytes())}
    except (OSError, ValueError, TypeError):
        raise UserError(f"--out {out}: its {file.name} cannot be read: give another folder") from None
    new = json.loads(json.dumps(settings))
    compared = new if needed is None else needed
    differ = [f"{key} was {stored.get(key)} and is {new[key]}" for key in compared if stored.get(key) != new[key]]
    if differ:
        raise UserError(
            f"--out {out}: holds {contents} whose {', '.join(differ)}: give another folder", ExitStatus.BAD_CONFIG
        )


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically."""
    replace_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
