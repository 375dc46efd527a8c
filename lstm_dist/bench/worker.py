"""One process of a worker pool (`worker_pool.py`): build the implementation, then execute commands.

python -m lstm_dist.bench.worker NAME CASE FOLDER        CASE as a JSON list, FOLDER with the pool's socket
"""

import json
import socket
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Type

import numpy as np
from safetensors.numpy import load_file, save_file

from lstm_dist.bench.case import Case
from lstm_dist.bench.implementation import Contestant, Seat
from lstm_dist.cluster.cpu_affinity import pin_to_cores
from lstm_dist.cluster.launch_env import detect
from lstm_dist.data.batching import shard


def find(name: str) -> Type[Contestant]:
    """Return the implementation's class; import only what it needs, so that no two libraries share a process."""
    if name.startswith("ours"):
        from lstm_dist.bench.implementations import lstm_dist

        kinds = {"guarded": lstm_dist.OursGuarded, "timed": lstm_dist.OursTimed, "mute": lstm_dist.OursMute}
        return kinds.get(name.partition(", ")[2], lstm_dist.Ours)
    if name == "torch-lstm":
        from lstm_dist.bench.implementations.torch_lstm import TorchLSTM

        return TorchLSTM
    if name.startswith("torch"):
        from lstm_dist.bench.implementations import torch_cell as cell

        return {"torch-cell": cell.TorchCell, "torch-compiled": cell.TorchCompiled, "torch-ddp": cell.TorchDDP}[name]
    from lstm_dist.bench.implementations.d2l import Textbook
    from lstm_dist.bench.implementations.gluon import Gluon
    from lstm_dist.bench.matmul_bound import Floor

    return {"textbook": Textbook, "gluon": Gluon, "matmul floor": Floor}[name]


def memory(field: str) -> int:
    """Return this process's memory in bytes: VmRSS is the current, VmHWM the peak resident size."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


class Member:
    """Command handlers of one process, one method per command."""

    def __init__(self, name: str, case: Case, folder: Path) -> None:
        contestant = find(name)
        self._imported_bytes = memory("VmRSS")
        rank = detect().rank
        rows = shard(case.streams, rank, case.workers)
        parameters = load_file(folder / "initial.safetensors")
        self._seat = Seat(case, rows.stop - rows.start, rank, parameters, folder)
        self._windows = case.windows(rank)
        self.contestant = contestant(self._seat)

    def first(self) -> Dict[str, Any]:
        """Run the first window; rank 0 saves the gradients in the folder; the loss is this process's share."""
        loss = self.contestant.backward(next(self._windows))
        gradients = self.contestant.gradients()
        if self._seat.rank == 0 and gradients:
            arrays = {name: np.ascontiguousarray(value) for name, value in gradients.items()}
            save_file(arrays, self._seat.folder / "gradients.safetensors")
        self.contestant.update()
        self.contestant.wait()
        return {"loss": loss.asnumpy().item() if hasattr(loss, "asnumpy") else float(loss or 0)}

    def steps(self, count: int) -> Dict[str, Any]:
        """Run `count` steps, and return their total seconds."""
        started = time.perf_counter()
        for window in islice(self._windows, count):
            self.contestant.step(window)
        self.contestant.wait()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "bytes": memory("VmHWM") - self._imported_bytes}

    def profile(self, count: int) -> Dict[str, Any]:
        """Profile `count` steps with MXNet, and return calls and milliseconds per step of every operator."""
        from mxnet import profiler

        file = str(self._seat.folder / "profile.json")
        profiler.set_config(profile_symbolic=True, profile_imperative=True, aggregate_stats=True, filename=file)
        profiler.set_state("run")
        self.steps(count)
        profiler.set_state("stop")
        operators = json.loads(profiler.dumps(reset=True, format="json"))["Time"]["operator"]
        return {name: [one["Count"] / count, one["Total"] / count] for name, one in operators.items()}


def main(name: str, case: str, folder: str) -> None:
    """Execute commands until the parent closes the connection."""
    pin_to_cores()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{folder}/socket")
        with connection.makefile("rw", encoding="utf-8") as lines:
            member = Member(name, Case(*json.loads(case)), Path(folder))
            commands: Dict[str, Callable[..., Dict[str, Any]]]
            commands = {"first": member.first, "steps": member.steps, "profile": member.profile}
            for line in lines:
                command, *arguments = json.loads(line)
                answer = commands[command](*arguments)
                lines.write(json.dumps(answer) + "\n")
                lines.flush()
            member.contestant.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
