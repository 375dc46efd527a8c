"""One process of a worker pool (`worker_pool.py`), which builds an implementation and then executes commands.

python -m lstm_dist.bench.worker NAME CASE FOLDER        CASE is a JSON list; FOLDER contains the pool's socket
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
from lstm_dist.bench.implementation import Implementation, WorkerAssignment
from lstm_dist.cluster.cpu_affinity import pin_to_cores
from lstm_dist.cluster.launch_env import detect
from lstm_dist.cluster.openblas import named_kernel
from lstm_dist.data.batching import shard


def implementation_class(name: str) -> Type[Implementation]:
    """Return the class registered as `name`; import only its own library (MXNet or torch)."""
    if name.startswith("ours"):
        from lstm_dist.bench.implementations import lstm_dist

        return {
            "ours": lstm_dist.LstmDist,
            "ours, guarded": lstm_dist.LstmDistGuarded,
            "ours, timed": lstm_dist.LstmDistTimed,
            "ours-dense": lstm_dist.LstmDistDense,
            "ours, without exchange": lstm_dist.LstmDistWithoutExchange,
            "ours-loop": lstm_dist.LstmDistLoop,
            "ours-persistent": lstm_dist.LstmDistPersistent,
        }[name]
    if name == "torch-lstm":
        from lstm_dist.bench.implementations.torch_lstm import TorchLSTM

        return TorchLSTM
    if name.startswith("torch"):
        from lstm_dist.bench.implementations import torch_cell

        return {
            "torch-cell": torch_cell.TorchCell,
            "torch-compiled": torch_cell.TorchCompiled,
            "torch-ddp": torch_cell.TorchDDP,
        }[name]
    from lstm_dist.bench.implementations.d2l import D2LChapter
    from lstm_dist.bench.implementations.gluon import Gluon
    from lstm_dist.bench.matmul_bound import MatmulBound

    return {"textbook": D2LChapter, "gluon": Gluon, "matmul floor": MatmulBound}[name]


def resident_bytes(field: str) -> int:
    """Return this process's resident memory in bytes: "VmRSS" is the current, "VmHWM" the peak size."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


class PoolWorker:
    """The state of one worker process, with one method per command."""

    def __init__(self, name: str, case: Case, folder: Path) -> None:
        with named_kernel():  # for every implementation in MXNet, because their users could name it too
            implementation = implementation_class(name)
        self._imported_bytes = resident_bytes("VmRSS")
        rank = detect().rank
        rows = shard(case.streams, rank, case.workers)
        parameters = load_file(folder / "initial.safetensors")
        self._assignment = WorkerAssignment(case, rows.stop - rows.start, rank, parameters, folder)
        self._windows = case.windows(rank)
        self.implementation = implementation(self._assignment)

    def first_step(self) -> Dict[str, Any]:
        """Run one step, save the gradients in the pool's folder on rank 0, and return this worker's loss."""
        loss = self.implementation.backward(next(self._windows))
        gradients = self.implementation.gradients()
        if self._assignment.rank == 0 and gradients:
            arrays = {name: np.ascontiguousarray(value) for name, value in gradients.items()}
            save_file(arrays, self._assignment.folder / "gradients.safetensors")
        self.implementation.update()
        self.implementation.wait()
        return {"loss": loss.asnumpy().item() if hasattr(loss, "asnumpy") else float(loss or 0)}

    def steps(self, count: int) -> Dict[str, Any]:
        """Run `count` steps, and return their total seconds and the peak memory in bytes since the imports."""
        started = time.perf_counter()
        for window in islice(self._windows, count):
            self.implementation.step(window)
        self.implementation.wait()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "bytes": resident_bytes("VmHWM") - self._imported_bytes}

    def profile(self, count: int) -> Dict[str, Any]:
        """Profile `count` steps with MXNet, and return calls and milliseconds per step of every operator."""
        from mxnet import profiler

        path = str(self._assignment.folder / "profile.json")
        profiler.set_config(profile_symbolic=True, profile_imperative=True, aggregate_stats=True, filename=path)
        profiler.set_state("run")
        self.steps(count)
        profiler.set_state("stop")
        operators = json.loads(profiler.dumps(reset=True, format="json"))["Time"]["operator"]
        return {name: [totals["Count"] / count, totals["Total"] / count] for name, totals in operators.items()}


def main(name: str, case: str, folder: str) -> None:
    """Execute commands until the parent closes the connection."""
    pin_to_cores()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{folder}/socket")
        with connection.makefile("rw", encoding="utf-8") as lines:
            worker = PoolWorker(name, Case(*json.loads(case)), Path(folder))
            commands: Dict[str, Callable[..., Dict[str, Any]]]
            commands = {"first_step": worker.first_step, "steps": worker.steps, "profile": worker.profile}
            for line in lines:
                command, *arguments = json.loads(line)
                reply = commands[command](*arguments)
                lines.write(json.dumps(reply) + "\n")
                lines.flush()
            worker.implementation.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
