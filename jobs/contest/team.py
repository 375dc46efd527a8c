"""A team: the processes of one entry, which wait for their turn and answer one JSON line with another."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Dict, List, NamedTuple, Optional, Type

from contest.case import Case
from lstm_dist.errors import UserError

_JOBS = Path(__file__).resolve().parents[1]
_LIMIT = 1200.0  # seconds for an answer: torch.compile of a long window takes minutes


class Entry(NamedTuple):
    """Who computes what; `controller` is Horovod's, where there is more than one worker."""

    contestant: str
    case: Case
    controller: str = "mpi"


class Team:
    """One process, or as many as the case has workers, started by horovodrun. Leaving the context ends them.

    Attributes:
        entry: what they compute.
        folder: theirs, with `initial.safetensors` in it.
    """

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry = entry
        self.folder = folder
        self._log = folder / "output.txt"
        self._members: List[IO[str]] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "socket"))
            listener.listen()
            listener.settimeout(0.2)
            self._process = self._start()
            for _ in range(entry.case.workers):
                self._members.append(self._accept(listener))

    def ask(self, *command: Any) -> List[Dict[str, Any]]:
        """The answers of all processes to one command.

        Raises:
            UserError: when one of them has ended, with its last words, or takes too long.
        """
        try:
            for member in self._members:
                member.write(json.dumps(command) + "\n")
                member.flush()
            return [json.loads(member.readline()) for member in self._members]
        except (OSError, json.JSONDecodeError):
            raise self._failure() from None

    def __enter__(self) -> "Team":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for member in self._members:
            with suppress(OSError):
                member.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        name, case, controller = self.entry
        command = [sys.executable, "-m", "contest", name, json.dumps(case), str(self.folder)]
        if case.workers > 1:
            horovodrun = str(Path(sys.executable).with_name("horovodrun"))
            command = [horovodrun, "--disable-cache", f"--{controller}", "-np", str(case.workers), *command]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(case.threads),
            "PYTHONPATH": str(_JOBS),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }
        if os.geteuid() == 0:
            environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        with open(self._log, "wb") as log:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _accept(self, listener: socket.socket) -> IO[str]:
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(socket.timeout):
                connection, _ = listener.accept()
                connection.settimeout(_LIMIT)
                with connection:  # the file keeps it open
                    return connection.makefile("rw", encoding="utf-8")
        raise self._failure()

    def _failure(self) -> UserError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._process.kill()
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return UserError(f"{self.entry.contestant}: ended early or gave no answer: {said[-1] if said else 'no word'}")
