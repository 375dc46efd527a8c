"""One job of an experiment: run to its end, and asked where it computed."""

import json
import re
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Set

from lstm_dist.cluster.launch_env import die_with_parent
from lstm_dist.cluster.provenance import code_digest, describe_process
from lstm_dist.experiments.launchers import TRAIN

_LAUNCHERS = re.compile(r"^\[\d+,\d+\]<std(out|err)>:|^-+$")
_ERROR = re.compile(r"error: |(\w+\.)*\w+Error\b")
_PATIENCE = 60.0  # seconds that a job has to end when its experiment is interrupted


class Outcome(NamedTuple):
    """How a command ended: its status, its last word if it failed, and its seconds."""

    status: int
    message: str
    seconds: float


class Source(NamedTuple):
    """The program that measures: its commit in words, and the digest of its code."""

    commit: str
    code: str

    @classmethod
    def here(cls) -> "Source":
        """This one."""
        return cls(str(describe_process()["git_commit"]), code_digest(TRAIN))

    def row(self, name: str, outcome: Outcome, card: Path) -> Dict[str, Any]:
        """What the row of any job says of it; `card` is the one that it left."""
        state = "failed" if outcome.status else "finished"
        return {"id": name, "state": state, **outcome._asdict(), **self._asdict(), **where(card)}


def execute(command: Sequence[str], output: Path, variables: Dict[str, str]) -> Outcome:
    """Run a command to its end, what it says into a file; it does not outlive this process."""
    began = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return Outcome(status, last_words(output) if status else "", time.monotonic() - began)


def last_words(output: Path) -> str:
    """The last error that a job told, or else its last line; launchers have more to say behind it, and before."""
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in (_LAUNCHERS.sub("", line).strip() for line in text.splitlines()) if line]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["it ended without a word"])[-1]


def where(card_file: Path) -> Dict[str, Any]:
    """On what a job computed, by the card that it left; empty words where it did not get that far.

    Returns:
        `machine` in words, the number of `hosts` and of `cores` that the workers have on them, their `devices`, and
        whether they are `oversubscribed`: more threads than cores on a host, or several workers on a GPU.
    """
    try:
        card = json.loads(card_file.read_bytes())
    except (OSError, ValueError):
        return {"machine": "", "hosts": 0, "cores": 0, "devices": [], "oversubscribed": False}
    cores: Dict[str, Set[int]] = defaultdict(set)
    threads: Dict[str, int] = defaultdict(int)
    for rank in card["ranks"]:
        cores[rank["host"]].update(rank["cores"])
        threads[rank["host"]] += max(1, rank["threads"])
    gpus = [(rank["host"], rank["gpu"]) for rank in card["ranks"] if rank["gpu"]]
    chips = sorted({(rank["gpu"] or rank["processor"]).split(" at ")[0] for rank in card["ranks"]})
    versions = [f"{name} {version}" for name, version in sorted(card["versions"].items())]
    return {
        "machine": ", ".join([*chips, f"Python {card['python']}", *versions]),
        "hosts": len(cores),
        "cores": sum(map(len, cores.values())),
        "devices": sorted({rank["device"] for rank in card["ranks"]}),
        "oversubscribed": len(set(gpus)) < len(gpus) or (not gpus and any(threads[h] > len(cores[h]) for h in cores)),
    }


def json_lines(path: Path) -> List[Dict[str, Any]]:
    """The records of a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
