"""A worker pool: the processes of one entry, which execute commands in their turn and are stopped between turns.

Commands and replies are JSON lines on a socket. Waiting pools are stopped with SIGSTOP: an idle Horovod over MPI polls
its peers about a thousand times a second, which occupies a core and would slow down the running pool.
"""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Dict, List, NamedTuple, Optional, Type

from lstm_dist.bench.case import Case
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.errors import UserError

_TIMEOUT = 1200.0  # seconds to wait for a reply: torch.compile of a long window takes minutes


class Entry(NamedTuple):
    """An implementation, by name, and its case; `controller` is Horovod's, for more than one worker."""

    implementation: str
    case: Case
    controller: str = "mpi"


class WorkerPool:
    """The worker processes of one entry; horovodrun starts them if there are several. Leaving the context ends them.

    Attributes:
        entry: what the processes compute.
        folder: the pool's folder, which contains `initial.safetensors`.
    """

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry = entry
        self.folder = folder
        self._log = folder / "output.txt"
        self._connections: List[IO[str]] = []
        self._pids: List[int] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "socket"))
            listener.listen()
            listener.settimeout(0.2)
            self._process = self._start()
            for _ in range(entry.case.workers):
                self._accept(listener)
        # If this process dies, a stopped pool cannot notice it: the reaper kills the pool when its own stdin closes.
        reaper = ["sh", "-c", 'read -r _; kill -KILL "$@"', "reaper", *map(str, self._pids)]
        self._reaper = subprocess.Popen(
            reaper, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def call(self, *command: Any) -> List[Dict[str, Any]]:
        """Send a command to all workers, and return their replies.

        Raises:
            UserError: if a worker has exited, with its last error message, or does not reply in time.
        """
        self._signal(signal.SIGCONT)
        try:
            for connection in self._connections:
                connection.write(json.dumps(command) + "\n")
                connection.flush()
            replies = [json.loads(connection.readline()) for connection in self._connections]
        except (OSError, json.JSONDecodeError):
            raise self._failure() from None
        self._signal(signal.SIGSTOP)
        return replies

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._signal(signal.SIGCONT)
        for connection in self._connections:
            with suppress(OSError):
                connection.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._reaper.kill()
        self._reaper.communicate()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _start(self) -> "subprocess.Popen[bytes]":
        name, case, controller = self.entry
        program = ["-m", "lstm_dist.bench.worker", name, json.dumps(case), str(self.folder)]
        command = Workers(case.workers, controller=controller).command(program)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(case.threads),
            "HOROVOD_GLOO_TIMEOUT_SECONDS": str(int(_TIMEOUT)),  # stopped processes must not time out
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }
        if os.geteuid() == 0:
            environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _accept(self, listener: socket.socket) -> None:
        """Accept the connection of the next worker."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(socket.timeout):
                connection, _ = listener.accept()
                connection.settimeout(_TIMEOUT)
                pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                self._pids.append(pid)
                with connection:  # the file object keeps it open
                    self._connections.append(connection.makefile("rw", encoding="utf-8"))
                return
        raise self._failure()

    def _failure(self) -> UserError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._process.kill()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        # Launchers print more lines after a Python error.
        errors = [line for line in lines if re.search(r"\w+Error\b", line)] or lines
        last = errors[-1] if errors else "none"
        return UserError(
            f"{self.entry.implementation}: a worker exited early or did not reply within {_TIMEOUT:.0f} s; "
            f"use --only to leave this implementation out; last output of its workers: {last}"
        )
