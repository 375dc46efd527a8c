"""What a resumed run takes over from its start, and what must not differ from it."""

from typing import Any, Dict, Mapping

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.options import flag, metadata_of, shown
from lstm_dist.train.config import FIELDS


def require_same_run(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run is resumed with the settings that determine its result.

    Args:
        then: `resolved` when the run was started.
        now: `resolved` of the current command.

    Raises:
        UserError: naming every field that differs, with both values.
    """
    # A run from before a field was added behaved like the field's default.
    then = {**{k: field.default for k, field in FIELDS.items()}, **then}
    keys = [k for k in {**then, **now} if _decides(k) and then.get(k) != now.get(k)]
    if keys:
        changes = {k: f"{flag(k)} was {shown(then.get(k))} and is {shown(now.get(k))}" for k in keys}
        if "corpus_sha256" in changes:
            changes["corpus_sha256"] = "--corpus is another text, or the same one in another form (plain or prepared)"
        listed = ", ".join(changes.values())
        raise UserError(
            f"--resume: {listed}: leave {'it' if len(keys) == 1 else 'them'} as in that run, or start another",
            ExitStatus.BAD_CONFIG,
        )


def inherited_settings(resolved: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the settings that a resumed run takes over from the `resolved` ones of its start."""
    return {k: v for k, v in resolved.items() if k in FIELDS and metadata_of(FIELDS[k], "inherited", True)}


def _decides(key: str) -> bool:
    """Return whether a key of `resolved` decides the result; the digest of the corpus does."""
    return key not in FIELDS or bool(metadata_of(FIELDS[key], "decides", True))
