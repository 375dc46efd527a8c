"""The run card, `run.json`: where, how and by which code a run was started, and its list `starts` of all starts."""

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping

from lstm_dist.files import replace_text

CARD = "run.json"

# The facts of a start that are kept when a later one replaces the card.
_OF_A_START = (
    "started", "attempt", "step", "command", "code", "git_commit", "git_uncommitted", "python", "versions", "workers",
    "controller", "mpi", "slurm",
)  # fmt: skip


def read_card(run_dir: Path) -> Dict[str, Any]:
    """Return the run card; an empty one if it is missing or invalid."""
    try:
        card = json.loads((run_dir / CARD).read_bytes())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def write_card(run_dir: Path, card: Mapping[str, Any]) -> None:
    """Replace the run card atomically, so that no crash loses the earlier starts.

    Raises:
        OSError: if it cannot be written; the former one is unchanged.
    """
    # A path that is not UTF-8 contains lone surrogates, which are written as JSON escapes.
    replace_text(run_dir / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def with_starts(card: Mapping[str, Any], earlier: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the card of a start with `starts`, one entry for each start of the run, the newest last.

    Args:
        card: of this start.
        earlier: the card that it replaces; empty for the first start. That of an earlier version has no `starts`, and
            is itself that of one.
    """
    starts: List[Dict[str, Any]] = earlier.get("starts") or ([_entry(earlier)] if earlier else [])
    return {**card, "starts": [*starts, _entry(card)]}


def _entry(card: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the facts of a start by its card; what an earlier version did not record is None."""
    hosts = list(dict.fromkeys(rank["host"] for rank in card.get("ranks", [])))
    return {**{name: card.get(name) for name in _OF_A_START}, "hosts": hosts}
