"""One process of a team, as `team.py` starts it: builds its contestant, then does as it is told.

python -m contest NAME CASE FOLDER        CASE as a JSON list, FOLDER holds the contest's socket
"""

import importlib
import json
import socket
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np
from safetensors.numpy import load_file, save_file

from contest.case import Case
from contest.contestant import Contestant, Seat
from lstm_dist.batches import shard
from lstm_dist.launcher import detect

CONTESTANTS = {
    "ours": ("contest.ours", "Ours"),
    "ours, mute": ("contest.ours", "OursMute"),
    "textbook": ("contest.textbook", "Textbook"),
    "gluon": ("contest.gluon", "Gluon"),
    "torch-lstm": ("contest.torch_lstm", "TorchLSTM"),
    "torch-cell": ("contest.torch_cell", "TorchCell"),
    "torch-compiled": ("contest.torch_cell", "TorchCompiled"),
    "torch-ddp": ("contest.torch_cell", "TorchDDP"),
    "matmul floor": ("contest.floor", "Floor"),
}


def memory(field: str) -> int:
    """Bytes of this process's memory: VmRSS is what is resident now, VmHWM the most that ever was."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


class Member:
    """The answers of one process, one method a command."""

    def __init__(self, name: str, case: Case, folder: Path) -> None:
        module, kind = CONTESTANTS[name]
        contestant = getattr(importlib.import_module(module), kind)
        self._imported_bytes = memory("VmRSS")
        rank = detect().rank
        rows = shard(case.streams, rank, case.workers)
        parameters = load_file(folder / "initial.safetensors")
        self._seat = Seat(case, rows.stop - rows.start, rank, parameters, folder)
        self._windows = case.windows(rank)
        self.contestant: Contestant = contestant(self._seat)

    def first(self) -> Dict[str, Any]:
        """The first window: rank 0 leaves the gradients in the folder; the loss is this process's share."""
        loss = self.contestant.backward(next(self._windows))
        gradients = self.contestant.gradients()
        if self._seat.rank == 0 and gradients:
            arrays = {name: np.ascontiguousarray(value) for name, value in gradients.items()}
            save_file(arrays, self._seat.folder / "gradients.safetensors")
        self.contestant.update()
        self.contestant.wait()
        return {"loss": float(np.sum(loss.numpy() if hasattr(loss, "numpy") else loss.asnumpy())) if gradients else 0.0}

    def steps(self, count: int) -> Dict[str, Any]:
        """So many steps, and their seconds in all."""
        started = time.perf_counter()
        for window in islice(self._windows, count):
            self.contestant.step(window)
        self.contestant.wait()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "bytes": memory("VmHWM") - self._imported_bytes}


def main(name: str, case: str, folder: str) -> None:
    """Answer until the parent hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{folder}/socket")
        with connection.makefile("rw", encoding="utf-8") as lines:
            member = Member(name, Case(*json.loads(case)), Path(folder))
            for line in lines:
                command, *arguments = json.loads(line)
                answer = {"first": member.first, "steps": member.steps}[command](*arguments)
                lines.write(json.dumps(answer) + "\n")
                lines.flush()
            member.contestant.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
