"""A scaling experiment with known numbers."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from lstm_dist.scaling.allreduce_model import Link
from lstm_dist.scaling.host_links import HostLinks
from lstm_dist.scaling.speedup_laws import Law

LAW = Law("USL", 0.05, 0.01)  # of the throughputs below

LINK = Link(1e-4, 5e-6, 2e-5, 1e-9)  # of the allreduces below

HOST_LINKS = HostLinks(LINK._replace(overhead=0.0), Link(5e-4, 5e-5, 2e-4, 8e-9), 2)  # of those on hosts of two workers

SINGLE = 10_000.0  # characters per second of one worker

SPREAD = (0.98, 1.0, 1 / 0.98)  # factors of three repetitions; their geometric mean is 1

GRADIENTS = 1_000_000  # bytes

HOSTILE = "rank 1: <script>alert('1|2')</script>\n`*gone*` & lost"

ORIGIN = {"machine": "a machine", "commit": "c0ffee", "code": "ab12", "hosts": 1}

EXPERIMENT = {
    "streams": 32, "seq_len": 35, "hidden_size": 256, "vocab_size": 1595, "parameters": 2306363, "steps": 50,
    "epochs": 5, "warm_up": 1, "flags": [], "launcher": "mpirun on this host", "bytes": GRADIENTS, "time_every": 25,
    "threads": 1,
}  # fmt: skip


def point(name: str, mode: str, workers: int, streams: int, repeat: int, **facts: Any) -> Dict[str, Any]:
    return {
        "id": name, "mode": mode, "workers": workers, "streams": streams, "repeat": repeat, "state": "finished",
        "status": 0, "message": "", "cores": 4, "devices": ["cpu(0)"], "oversubscribed": workers > 4, "seconds": 9.0,
        "command": f"mpirun -np {workers} python jobs/train.py", "bytes": GRADIENTS, "epochs": [], "times": [],
        **ORIGIN, **facts,
    }  # fmt: skip


def times(workers: int, streams: int) -> List[Dict[str, Any]]:
    """Return ten steps with 1.5 ms of compute per stream and 1 ms per further worker; in nine the last rank is late."""
    found = []
    for step in range(10):
        late = 0 if step == 0 else workers - 1
        for rank in range(workers):
            compute = 1.5e-3 * streams / workers + 1e-3 * (workers - 1)
            behind = 2e-3 if workers > 1 else 0.0
            found.append(
                {
                    "step": step, "rank": rank, "host": "vm", "data": 1e-4,
                    "compute": compute + (behind if rank == late else 0.0), "wait": 0.0 if rank == late else behind,
                    "wire": LINK.seconds(workers, GRADIENTS), "update": 1e-3,
                }
            )  # fmt: skip
    return found


def scaling_point(mode: str, workers: int, repeat: int, slow: float = 0.2) -> Dict[str, Any]:
    """Return a job whose throughput follows LAW; more than four workers have `slow` times as much."""
    streams = 32 * workers if mode == "weak" else 32
    rate = SINGLE * LAW.speedup(workers) * SPREAD[repeat - 1] * (slow if workers > 4 else 1.0)
    epochs = [{"epoch": 2, "chars_per_sec": rate, "steps": 50}, {"epoch": 3, "chars_per_sec": rate, "steps": 50}]
    name = f"{mode}-n{workers:03d}-r{repeat}"
    return point(name, mode, workers, streams, repeat, epochs=epochs, times=times(workers, streams))


def perplexity_point(streams: int, chars: int, seconds: float, **facts: Any) -> Dict[str, Any]:
    name, reached = f"perplexity-b{streams:04d}-r1", {"target": 50.0, "reached": True, **facts}
    return point(name, "perplexity", streams // 32, streams, 1, chars=chars, train_seconds=seconds, **reached)


def network(path: str, workers: int, **facts: Any) -> Dict[str, Any]:
    link = LINK._replace(overhead=0.0) if path == "mpi" else LINK
    sizes = [
        {"bytes": size, "seconds": [(link.seconds(workers, size) or 1e-4) * (4 if workers > 4 else 1)] * 3}
        for size in (64, 2048, 300_000, GRADIENTS, 20_000_000)
    ]
    state = {"state": "finished", "status": 0, "message": "", "oversubscribed": workers > 4, "sizes": sizes}
    return {"path": path, "workers": workers, **ORIGIN, **state, **facts}


def on_hosts(row: Dict[str, Any]) -> Dict[str, Any]:
    """Place a job on hosts of two workers, with the times of HOST_LINKS if it is one of allreduces."""
    workers = row["workers"]
    facts: Dict[str, Any] = {"oversubscribed": False}
    if "path" in row:
        links = HOST_LINKS
        if row["path"] == "mpi":
            links = links._replace(between=links.between._replace(overhead=0.0))
        facts["sizes"] = [
            {"bytes": times["bytes"], "seconds": [links.seconds(workers, times["bytes"])] * 3} for times in row["sizes"]
        ]
    return {**row, "hosts": -(-workers // 2), "workers_per_host": min(workers, 2), **facts}


def save(folder: Path, *rows: Dict[str, Any], settings: Optional[Dict[str, Any]] = None) -> Path:
    """Write an experiment with these rows; `settings` are those that differ from EXPERIMENT."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps({**EXPERIMENT, **(settings or {})}))
    for row in rows:
        name = (
            f"points/{row['id']}/row.json" if "id" in row else f"network/{row['path']}-n{row['workers']:03d}/row.json"
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(row))
    return folder


def everything() -> Iterator[Dict[str, Any]]:
    for mode in ("weak", "strong"):
        for workers in (1, 2, 4, 8):
            yield from (scaling_point(mode, workers, repeat) for repeat in (1, 2, 3))
    failed = {"state": "failed", "status": 76, "message": HOSTILE, "machine": "", "commit": "", "code": ""}
    yield point("weak-n004-r4", "weak", 4, 128, 4, **failed)
    for path in ("horovod-mpi", "mpi"):
        yield from (network(path, workers) for workers in (1, 2, 4, 8))
    yield network("horovod-gloo", 2, **{**failed, "sizes": []})
    yield perplexity_point(32, 1_000_000, 100.0)
    yield perplexity_point(64, 1_250_000, 62.5)
    yield perplexity_point(128, 4_000_000, 400.0, reached=False)
    yield perplexity_point(256, 2_000_000, 50.0)


def read_rows(out: Path, kind: str = "points") -> Dict[str, Dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob(f"{kind}/*/row.json")}
