"""Report of a slow start: which phase the workers of a host are in, and which workers the others wait for.

Before the workers are connected they cannot communicate. So each worker publishes the phases that it has reached as
names of abstract Unix sockets, which every process of the host can list and which the kernel removes with the process.
Other hosts are not visible; their workers report for themselves.
"""

import hashlib
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple

from lstm_dist.cluster.launch_env import Launch, detect, die_with_parent

LOADING = "loading libraries"
CONNECTING = "connecting to the other workers"
CONFIGURING = "reading the configuration"
PREPARING = "reading the corpus and building the model"
AGREEING = "comparing settings, text and versions"
OPENING = "opening the run directory"
PHASES = (LOADING, CONNECTING, CONFIGURING, PREPARING, AGREEING, OPENING)
NOT_STARTED = -1

_FIRST_REPORT = 10.0  # seconds
_NEXT_REPORTS = 60.0

# Variables that identify a job among those of a host, by launcher; the first complete alternative is used.
_JOB_ID: Dict[str, List[Tuple[str, ...]]] = {
    "horovodrun": [("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")],
    "mpirun": [("PMIX_NAMESPACE",), ("OMPI_MCA_ess_base_jobid",)],
    "srun": [("SLURM_JOB_ID", "SLURM_STEP_ID")],
}


class Startup:
    """The start of one worker, from `__init__` to `finish`.

    A separate process watches the clock, because MPI_Init holds Python's global interpreter lock.
    """

    def __init__(
        self, launch: Launch, job: str, first_report: float = _FIRST_REPORT, next_reports: float = _NEXT_REPORTS
    ) -> None:
        """Enter the first phase and begin to watch the clock; call it before any thread is started.

        Args:
            launch: this process as its launcher describes it.
            job: identifies the job among those of this host.
            first_report, next_reports: seconds until the first report, and between later ones.
        """
        self._launch, self._job = launch, job
        worker = os.getpid()
        self._watcher = os.fork()
        if not self._watcher:
            _watch(worker, launch, job, first_report, next_reports)
        self._sockets: List[socket.socket] = []
        self._is_over = False
        self._held: List[str] = []
        self.enter(LOADING)

    @classmethod
    def begin(cls, environ: Mapping[str, str]) -> "Startup":
        """Return a Startup for the process that the launcher's variables describe."""
        launch = detect(environ)
        return cls(launch, job_id(launch, environ) or f"process {os.getpid()}")

    def enter(self, phase: str) -> None:
        """Publish that this worker has reached a phase, one of PHASES."""
        published = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):  # another process already uses the name, which is harmless
            published.bind(f"\0{_name(self._job)}/{self._launch.local_rank}/{PHASES.index(phase)}")
        self._sockets.append(published)

    def finish(self) -> None:
        """End the start; call it before the first line of the log is written.

        The phases stay published until this process ends, as another worker may be a moment behind.
        """
        with suppress(ProcessLookupError, ChildProcessError):  # it has ended already
            os.kill(self._watcher, signal.SIGKILL)
            os.waitpid(self._watcher, 0)
        self._is_over = True
        for line in self._held:
            self.report(line)

    def report(self, line: str) -> None:
        """Write a line to stdout, where the log goes; before the end of the start it is held until then.

        A job that ends with an error before it begins has only that error to report.
        """
        if not self._is_over:
            self._held.append(line)
            return
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _watch(worker: int, launch: Launch, job: str, first_report: float, next_reports: float) -> NoReturn:
    """Report, in the watcher process, until the worker kills it or ends."""
    try:
        die_with_parent(worker, signal.SIGKILL)
        waited, pause = 0.0, first_report
        while os.getppid() == worker:
            time.sleep(pause)
            waited, pause = waited + pause, next_reports
            phases = phases_on_host(job, launch.local_size)
            present = [local_rank for local_rank, phase in enumerate(phases) if phase != NOT_STARTED]
            if present and present[0] == launch.local_rank:
                sys.stdout.write(f"still starting after {waited:.0f} s: {describe(launch, phases)}\n")
                sys.stdout.flush()
    finally:
        os._exit(0)


def job_id(launch: Launch, environ: Mapping[str, str]) -> Optional[str]:
    """Return what identifies the job among those of this host; None if the launcher sets no such variable."""
    for names in _JOB_ID.get(launch.name, []):
        if all(name in environ for name in names):
            return " ".join(environ[name] for name in names)
    return None


def phases_on_host(job: str, workers: int, listing: Path = Path("/proc/self/net/unix")) -> List[int]:
    """Return the phase of each worker of this host, by local rank: an index of PHASES, or NOT_STARTED."""
    phases = [NOT_STARTED] * workers
    prefix = f"@{_name(job)}/"
    for line in listing.read_text(errors="replace").splitlines():
        name = line.split(maxsplit=7)[-1]
        if name.startswith(prefix):
            local_rank, number = (int(part) for part in name[len(prefix) :].split("/"))
            if local_rank < workers and number < len(PHASES):
                phases[local_rank] = max(phases[local_rank], number)
    return phases


def describe(launch: Launch, phases: Sequence[int]) -> str:
    """Return one line: the phase of the waiting workers, and which workers they wait for.

    Args:
        launch: of the worker that reports.
        phases: of the workers of its host, by local rank.
    """
    host, furthest = socket.gethostname(), max(phases)
    behind: Dict[int, List[int]] = {}
    for local_rank, phase in enumerate(phases):
        if phase < furthest:
            behind.setdefault(phase, []).append(local_rank)
    names = "rank" if launch.size == launch.local_size else f"{host}: local rank"
    if behind:
        waiting = "; ".join(
            f"{names}{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} "
            f"({'not started' if phase == NOT_STARTED else PHASES[phase]})"
            for phase, ranks in sorted(behind.items())
        )
        return f"{PHASES[furthest]}, waiting for {waiting}"
    if launch.size == launch.local_size:
        return f"{PHASES[furthest]}{', all workers' if launch.size > 1 else ''}"
    return f"{PHASES[furthest]}, all {len(phases)} workers of {host}; if they wait, they wait for other hosts"


def _name(job: str) -> str:
    """Return the beginning of a job's names, short enough for a socket whatever the job is called."""
    return f"lstm_dist/{os.getuid()}/{hashlib.sha256(job.encode()).hexdigest()[:16]}"
