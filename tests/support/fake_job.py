"""A job without processes, for tests of what watches and restarts jobs."""

import json
import os
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from lstm_dist.attempt import ATTEMPT, Attempt
from lstm_dist.cluster.hosts import Host
from lstm_dist.run.status import record_failure


class FakeNet:
    """Hosts, of which some do not answer."""

    def __init__(self) -> None:
        self.down: Dict[str, str] = {}
        self.swept: List[str] = []  # hosts on which an attempt has ended earlier ones

    def ask(self, hosts: Sequence[Host], attempt: Optional[Attempt] = None, _: bool = False) -> Dict[str, List[str]]:
        self.swept += [host.name for host in hosts if attempt and host.name not in self.down]
        return {host.name: [self.down[host.name]] if host.name in self.down else [] for host in hosts}


class FakeJob:
    """One attempt, whose state a test sets; `asked` is set once it is paused or abandoned."""

    def __init__(self, run_dir: Path, number: int = 1) -> None:
        self.run_dir, self.attempt = run_dir, Attempt("job", number)
        self.has_begun = self.has_failed = self.is_stopping = self.is_paused = False
        self.abandoned: List[str] = []
        self.pauses = 0
        self.asked = threading.Event()
        self.state: Dict[str, Any] = {}

    def status(self) -> Dict[str, Any]:
        return self.state

    def pause(self) -> None:
        self.is_paused = True
        self.pauses += 1
        self.asked.set()

    def remove_request(self) -> None:
        pass

    def abandon(self, reason: str) -> None:
        self.abandoned.append(reason)
        self.asked.set()

    def fails(self, hosts: Sequence[str], spoken: Sequence[int], step: int) -> None:
        """Let ranks report that another one is lost, on hosts by rank."""
        (self.run_dir / "errors").mkdir(exist_ok=True)
        (self.run_dir / "run.json").write_text(json.dumps({"ranks": [{"host": host} for host in hosts]}))
        before, os.environ[ATTEMPT] = os.environ.get(ATTEMPT), str(self.attempt)
        for rank in spoken:
            record_failure(self.run_dir, rank, step, 76, "MXNetError", "shut down")
        os.environ.pop(ATTEMPT)
        os.environ.update({} if before is None else {ATTEMPT: before})
        self.has_begun = self.has_failed = True
