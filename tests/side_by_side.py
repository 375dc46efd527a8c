"""Compare jobs that share this machine's cores with each job alone; run by hand as root, in 20 minutes.

    .venv/bin/python -m tests.side_by_side                     every pair of Gloo, MPI and Slurm with 1, 2 and 4 workers
    .venv/bin/python -m tests.side_by_side --jobs mpi:2,mpi:2  one pair

Each row of the output is a pair: the seconds of each job alone and side by side with the other, and their ratio. Two
jobs that share the cores fairly take twice the time. The exit status is 1 if a ratio is above LIMIT.
"""

import argparse
import itertools
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence

from tqdm import tqdm

from tests.support.launchers import ENVIRONMENT, horovodrun, mpirun
from tests.support.network import Network
from tests.support.programs import TINY, TRAIN, run
from tests.support.slurm_cluster import Cluster

LIMIT = 2.5
KINDS, WORKERS = ("gloo", "mpi", "slurm"), (1, 2, 4)
FLAGS = (*TINY, "--sample-length=20")
EPOCHS = 40
TASKS_PER_NODE = 2


class Job(NamedTuple):
    """A job: its kind, one of KINDS, and its number of workers."""

    kind: str
    workers: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.workers}"

    @classmethod
    def parse(cls, text: str) -> "Job":
        """Parse a job such as "mpi:2"."""
        kind, _, workers = text.partition(":")
        assert kind in KINDS, text
        return cls(kind, int(workers))


class Machine:
    """Runs jobs on this machine; Slurm jobs run on a cluster of network namespaces on it."""

    def __init__(self, cluster: Cluster, folder: Path, epochs: int = EPOCHS) -> None:
        self._cluster, self._folder, self._epochs, self._count = cluster, folder, epochs, 0

    def seconds(self, jobs: Sequence[Job]) -> List[float]:
        """Run jobs at the same time, and return the wall-clock seconds of each."""
        with ThreadPoolExecutor(len(jobs)) as pool:
            return list(pool.map(self._run, jobs, self._run_dirs(len(jobs))))

    def _run_dirs(self, count: int) -> List[Path]:
        self._count += 1
        return [self._folder / f"run{self._count}-{number}" for number in range(count)]

    def _run(self, job: Job, run_dir: Path) -> float:
        flags, began = [*FLAGS, f"--epochs={self._epochs}", f"--run-dir={run_dir}"], time.monotonic()
        if job.kind == "slurm":
            nodes = -(-job.workers // TASKS_PER_NODE)
            sizes = [f"-N{nodes}", f"--ntasks-per-node={job.workers // nodes}"]
            ended = self._cluster.end(self._cluster.submit(*sizes, "--", *flags), 300)
            assert ended.status == 0, ended.log
        else:
            launcher = mpirun(job.workers) if job.kind == "mpi" else horovodrun("gloo", job.workers)
            done = run([*launcher, *TRAIN, *flags], env=ENVIRONMENT, timeout=300)
            assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - began


@contextmanager
def machine() -> Iterator[Machine]:
    """Yield this machine with a Slurm cluster on it."""
    with tempfile.TemporaryDirectory(prefix="side_by_side") as place:
        folder = Path(place)
        for part in ("network", "slurm", "runs"):
            (folder / part).mkdir()
        network = Network(folder / "network", 4)
        try:
            cluster = Cluster(network, folder / "slurm")
            yield Machine(cluster, folder / "runs")
            cluster.close()
        finally:
            network.close()


def main() -> int:
    """Print a table of all pairs."""
    parser = argparse.ArgumentParser(prog="python -m tests.side_by_side", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", help="the two jobs of one pair, as mpi:2,slurm:4")
    given = parser.parse_args()
    jobs = [Job(*each) for each in itertools.product(KINDS, WORKERS)]
    pairs = list(itertools.combinations_with_replacement(jobs, 2))
    if given.jobs:
        first, second = map(Job.parse, given.jobs.split(","))
        pairs = [(first, second)]
    alone: Dict[Job, float] = {}
    worst = 0.0
    with machine() as here:
        for job in dict.fromkeys(itertools.chain.from_iterable(pairs)):
            (alone[job],) = here.seconds([job])
        print("| jobs | alone, s | side by side, s | ratio |\n| --- | --- | --- | --- |", flush=True)
        for pair in tqdm(pairs, desc="pairs", unit="pair"):
            together = here.seconds(pair)
            ratios = [seconds / alone[job] for job, seconds in zip(pair, together)]
            worst = max(worst, *ratios)
            cells = [
                ", ".join(texts)
                for texts in (
                    map(str, pair),
                    (f"{alone[job]:.1f}" for job in pair),
                    (f"{seconds:.1f}" for seconds in together),
                    (f"{ratio:.2f}" for ratio in ratios),
                )
            ]
            tqdm.write(f"| {' | '.join(cells)} |")
            sys.stdout.flush()
    print(f"worst ratio {worst:.2f}, limit {LIMIT}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
