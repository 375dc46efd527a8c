"""The folder of an experiment: its settings, which every command that continues it must share."""

import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any, Mapping

from lstm_dist.errors import ExitStatus, UserError


def settle(file: Path, settings: Mapping[str, Any], what: str, usual: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Begin the folder of `file` with these settings, or see that those that it holds are the same.

    Args:
        file: JSON, of the settings.
        settings: that all that is kept in the folder has in common.
        what: a folder with other settings holds, for the message.
        usual: what stands for settings that it does not hold.

    Raises:
        UserError: naming --out, when it holds others, or something else, or cannot be written.
    """
    out = file.parent
    try:
        if not file.exists():
            if out.exists() and any(out.iterdir()):
                raise UserError(f"--out {out}: holds something else: give a new folder", ExitStatus.CANNOT_CREATE)
            out.mkdir(parents=True, exist_ok=True)
            write_json(file, settings)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})", ExitStatus.CANNOT_CREATE) from None
    try:
        held = {**usual, **json.loads(file.read_bytes())}
    except (OSError, ValueError, TypeError):
        raise UserError(f"--out {out}: {file.name} in it cannot be read: give another folder") from None
    new = json.loads(json.dumps(settings))
    differ = [f"{key} was {held.get(key)} and is {new[key]}" for key in new if held.get(key) != new[key]]
    if differ:
        raise UserError(
            f"--out {out}: holds {what} whose {', '.join(differ)}: give another folder", ExitStatus.BAD_CONFIG
        )


def write_json(path: Path, value: Any) -> None:
    """Replace a file as a whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
