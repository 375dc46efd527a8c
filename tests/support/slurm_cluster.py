"""A Slurm cluster on the simulated hosts of a network: munged, slurmctld, and a slurmd on each host."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

from tests.support.network import Network, wait_until
from tests.support.programs import ROOT, environment

SBATCH = str(ROOT / "slurm" / "train.sbatch")
# cred_expire: the seconds that a requeued job waits until the credentials of its previous run expire.
CONFIG = """
ClusterName=ours
SlurmctldHost=node1(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node[1-{count}] CPUs=2 RealMemory=2000 Gres=gpu:2
PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=abrupt Nodes=ALL PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Ended(NamedTuple):
    """A job that has ended: its state in Slurm's terms, its exit status and its output."""

    state: str
    status: int
    log: str


class Cluster:
    """The cluster, and a folder from which jobs are submitted."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.head = network.hosts[0]
        self.submit_dir = folder / "submit"
        for part in ("state", "submit/logs"):
            (folder / part).mkdir(parents=True)
        config = CONFIG.format(folder=folder, count=len(network.hosts))
        (folder / "slurm.conf").write_text(config)
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        self._daemons: Dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        files = ("socket", "key-file", "log-file", "pid-file", "seed-file")
        flags = [f"--{file}={self.folder}/munge.{file.split('-')[0]}" for file in files]
        self._daemon(0, "munged", "--foreground", "--force", *flags)
        wait_until((self.folder / "munge.socket").exists, "munged")
        self._daemon(0, "slurmctld", "-D", "-c", "-f", f"{self.folder}/slurm.conf")
        for number, host in enumerate(self.network.hosts):
            for part in ("spool", "tmp"):
                (self.folder / part / host.name).mkdir(parents=True)
            self._slurmd(number)
        wait_until(lambda: self.idle() == len(self.network.hosts), "idle nodes", 30)

    def _slurmd(self, number: int) -> None:
        name = self.network.hosts[number].name
        self._daemon(number, "slurmd", "-D", "-N", name, "-f", f"{self.folder}/slurm.conf")

    def _daemon(self, number: int, *argv: str) -> None:
        command = self.network.hosts[number].inside("env", f"SLURM_CONF={self.folder}/slurm.conf", *argv)
        with (self.folder / f"{argv[0]}{number}.out").open("wb") as log:
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._daemons[f"{argv[0]}{number}"] = daemon

    def slurm(self, *argv: str) -> str:
        """Return the stdout of a Slurm command on the head node; empty if it fails."""
        command = self.head.inside("env", f"SLURM_CONF={self.folder}/slurm.conf", *argv)
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    def idle(self) -> int:
        """Return the number of idle nodes."""
        return int(self.slurm("sinfo", "-h", "-p", "batch", "-t", "idle", "-o", "%D") or 0)

    def lose_node(self, number: int) -> None:
        """Let node<number> vanish, and slurmctld notice it at once instead of SlurmdTimeout (300) seconds later."""
        host = self.network.hosts[number - 1]
        self.network.set_link(number, "down")
        host.output("pkill", "-KILL", "-f", "slurmd|slurmstepd|slurm_script|srun|watch.guard|train.py")
        self._daemons[f"slurmd{number - 1}"].wait(timeout=10)
        self.slurm("scontrol", "update", f"nodename={host.name}", "state=down", "reason=lost")

    def restore_node(self, number: int) -> None:
        """Let a node that is lost return as after a reboot, with an empty spool and an empty /tmp."""
        if self._daemons[f"slurmd{number - 1}"].poll() is None:
            return
        self.network.set_link(number, "up")
        for part in ("spool", "tmp"):
            folder = self.folder / part / self.network.hosts[number - 1].name
            shutil.rmtree(folder)
            folder.mkdir()
        self._slurmd(number - 1)

    def submit(self, *words: str, env: Optional[Dict[str, str]] = None) -> str:
        """Submit slurm/train.sbatch; `words` are sbatch's flags, then "--", then those of jobs/train.py.

        Returns:
            The job's id.
        """
        cut = words.index("--")
        command = self.head.inside(
            str(shutil.which("sbatch")), "--parsable", *words[:cut], SBATCH, *words[cut + 1 :], cwd=self.submit_dir
        )
        done = subprocess.run(command, env=self.variables(env), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def variables(self, env: Optional[Dict[str, str]] = None) -> Dict[str, str]:
        """Return the environment for submitting a job: this cluster's Slurm, and this repository."""
        ours = {"SLURM_CONF": f"{self.folder}/slurm.conf", "LSTM_DIST": str(ROOT), "LSTM_DIST_ENV": sys.prefix}
        return {**environment(env), **ours, **(env or {})}

    def fact(self, job: str, name: str) -> str:
        """Return a field of a job from scontrol; empty if there is none."""
        match = re.search(rf"\b{name}=(\S*)", self.slurm("scontrol", "show", "job", "-o", job))
        return match[1] if match else ""

    def log(self, job: str) -> str:
        """Return the output of a job so far."""
        found = list((self.submit_dir / "logs").glob(f"*-{job}.out"))
        return found[0].read_text() if found else ""

    def end(self, job: str, seconds: float = 120) -> Ended:
        """Wait until a job has ended and will not be requeued, and return how it ended."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        deadline = time.monotonic() + seconds
        while self.fact(job, "JobState") not in over:
            if time.monotonic() > deadline:
                self.slurm("scancel", job)
                raise TimeoutError(f"job {job} is {self.fact(job, 'JobState')} after {seconds:g} s:\n{self.log(job)}")
            time.sleep(0.2)
        return Ended(self.fact(job, "JobState"), int(self.fact(job, "ExitCode").split(":")[0]), self.log(job))

    def close(self) -> None:
        for daemon in reversed(list(self._daemons.values())):
            daemon.kill()
            daemon.wait(timeout=10)


class Reference(NamedTuple):
    """The flags of a run of about ten seconds, and its results with one and with two workers, without interruption."""

    flags: Tuple[str, ...]
    alone: Path
    pair: Path
