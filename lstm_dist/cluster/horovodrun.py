"""How horovodrun is asked for workers: its command line, and the environment that they are given."""

import os
import re
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from lstm_dist.cluster.hosts import Host, is_here

# What workers need of this environment. horovodrun writes every value on its workers' command lines, where all users of
# the machine can read it, so nothing else goes along.
PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TERM|TMPDIR|LD_LIBRARY_PATH|PYTHON.*|VIRTUAL_ENV|OMP_.*|KMP_.*|"
    r"GOMP_.*|MKL_.*|OPENBLAS_.*|MXNET_.*|HOROVOD_.*|NCCL_.*|CUDA_.*|NVIDIA_.*|OMPI_.*|OPAL_PREFIX|PMIX_.*|UCX_.*|"
    r"LSTM_DIST_.*|SLURM_JOB_ID"
)
SECRET = re.compile(r"TOKEN|SECRET|PASS|CREDENTIAL|(^|_)KEY", re.IGNORECASE)


class Workers(NamedTuple):
    """Who is to be started, and how they talk.

    Attributes:
        number: of them.
        hosts: where, with so many each; none for this machine alone.
        controller: gloo or mpi.
        interface: through which they talk, or several with commas, or none in particular.
    """

    number: int
    hosts: Tuple[Host, ...] = ()
    controller: str = "gloo"
    interface: str = ""

    def command(self, program: Sequence[str]) -> List[str]:
        """The command line that starts them: `program` is a Python program and its flags."""
        # Without --disable-cache, horovodrun believes for an hour what it found out about a machine.
        command = ["horovodrun", "--disable-cache", f"--{self.controller}", "-np", str(self.number)]
        if self.hosts:
            command += ["-H", ",".join(map(str, self.hosts))]
        # On one machine they talk over its loopback, and horovodrun fails if it is given another interface.
        if self.interface and not all(is_here(host.name) for host in self.hosts):
            command += ["--network-interfaces", self.interface]
        programs = Path(sys.executable).parent  # the first folder on the job's PATH
        if self.hosts and self.controller == "mpi" and (programs / "mpirun").exists():
            # The environment's own MPI is on no host's PATH when mpirun starts its helper there.
            command.append(f"--mpi-args=--prefix {programs.parent}")
        return [*command, sys.executable, *program]


def environment(root: str = "localhost") -> Dict[str, str]:
    """What the workers get of this environment, and what they need beside; rank 0 runs on `root`."""
    env = {k: v for k, v in os.environ.items() if PASSED.fullmatch(k) and not SECRET.search(k)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["PYTHONUTF8"] = "1"  # horovodrun stops reading the workers at the first byte that is not UTF-8
    if os.geteuid() == 0:
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    # horovodrun reads the workers' output through pipes; rank 0 shows its lines and its progress bar on the terminal
    # behind them, unless they are to go to a file, or it runs on another host.
    env.pop("LSTM_DIST_TERMINAL", None)
    if sys.stdout.isatty() and sys.stderr.isatty() and is_here(root):
        env["LSTM_DIST_TERMINAL"] = os.ttyname(sys.stderr.fileno())
    return env
