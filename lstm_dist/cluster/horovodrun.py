"""The command line that starts the workers of a job, and their environment: horovodrun, or nothing for one worker."""

import os
import re
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from lstm_dist.cluster.cpu_affinity import openmp_threads
from lstm_dist.cluster.hosts import Host, is_here
from lstm_dist.cluster.isolation import ROOT, isolated
from lstm_dist.cluster.library_variables import require_valid

# Variables that are passed on to the workers. horovodrun writes every value on its workers' command lines, where all
# users of the machine can read it, so no others are passed.
PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TERM|TMPDIR|LD_LIBRARY_PATH|PYTHON.*|VIRTUAL_ENV|OMP_.*|KMP_.*|"
    r"GOMP_.*|MKL_.*|OPENBLAS_.*|MXNET_.*|HOROVOD_.*|NCCL_.*|CUDA_.*|NVIDIA_.*|OMPI_.*|OPAL_PREFIX|PMIX_.*|UCX_.*|"
    r"LSTM_DIST_.*|SLURM_JOB_ID"
)
# Variables of an outer launcher, which may have ended: the workers are those of the new job.
OUTER = re.compile(
    r"HOROVOD_((LOCAL_|CROSS_)?(RANK|SIZE)|HOSTNAME|GLOO_RENDEZVOUS_.*|GLOO_IFACE|CONTROLLER|CPU_OPERATIONS)|"
    r"PMIX_(?!MCA_).*|OMPI_(?!MCA_|ALLOW_).*|OMPI_MCA_(ess|orte_ess|orte_hnp|orte_local|orte_app|orte_num|orte_top|"
    r"orte_jobfam|orte_precondition|pmix|initial).*"
)
SECRET = re.compile(r"TOKEN|SECRET|PASS|CREDENTIAL|(^|_)KEY", re.IGNORECASE)


class Workers(NamedTuple):
    """The workers to start, and how they communicate.

    Attributes:
        number: of workers.
        hosts: the hosts and their slots; empty for this machine alone.
        controller: gloo or mpi.
        interface: network interfaces for communication, separated by commas; empty for any.
    """

    number: int
    hosts: Tuple[Host, ...] = ()
    controller: str = "gloo"
    interface: str = ""

    @property
    def is_direct(self) -> bool:
        """Return whether this process starts the only worker itself, which saves the imports of horovodrun."""
        return self.number == 1 and all(is_here(host.name) for host in self.hosts)

    def command(self, program: Sequence[str]) -> List[str]:
        """Return the command line that starts them; `program` is a Python program and its flags."""
        if self.is_direct:
            return [sys.executable, *program]
        # Without --disable-cache, horovodrun caches its checks of a machine for an hour.
        command = ["horovodrun", "--disable-cache", f"--{self.controller}", "-np", str(self.number)]
        if self.hosts:
            command += ["-H", ",".join(map(str, self.hosts))]
        # On one machine they communicate over loopback, and horovodrun fails if it is given another interface.
        if self.interface and not all(is_here(host.name) for host in self.hosts):
            command += ["--network-interfaces", self.interface]
        programs = Path(sys.executable).parent  # the first folder on the job's PATH
        if self.hosts and self.controller == "mpi" and (programs / "mpirun").exists():
            # The environment's own MPI is not on the PATH of a host when mpirun starts its helper there.
            command.append(f"--mpi-args=--prefix {programs.parent}")
        return [*command, sys.executable, *program]

    def flags(self) -> List[str]:
        """Return the flags of launch/local.sh, or of launch/cluster.sh if there are hosts, that start them."""
        flags = ["-H", ",".join(map(str, self.hosts))] if self.hosts else ["-n", str(self.number)]
        if self.interface:
            flags += ["--interface", self.interface]
        return [*flags, f"--{self.controller}"]

    def environment(self) -> Dict[str, str]:
        """Return the workers' environment: the passed variables and required additions.

        Raises:
            UserError: when a variable of OpenMP or MXNet has an invalid value.
        """
        require_valid(os.environ)
        env = {
            k: v
            for k, v in isolated(os.environ).items()
            if PASSED.fullmatch(k) and not SECRET.search(k) and not OUTER.fullmatch(k)
        }
        threads = openmp_threads(env)
        env.pop("OMP_NUM_THREADS", None)
        if threads:
            env["OMP_NUM_THREADS"] = str(threads)  # horovodrun loads MXNet, which aborts on a list of numbers
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
        env["PYTHONUNBUFFERED"] = "1"  # as horovodrun sets it
        env["PYTHONPATH"] = str(ROOT)  # so that they run this code, even if the environment was made in another clone
        env["PYTHONUTF8"] = "1"  # horovodrun stops reading the workers at the first byte that is not UTF-8
        # To see what Horovod was built with, horovodrun imports MXNet, which imports distutils. Python's own loads in
        # 1 ms, the one of setuptools in 0.2 s.
        env["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
        # PMIx's default, shared files under TMPDIR, fails where that is full, and their locks have crashed ranks that
        # start at the same time (https://github.com/openpmix/openpmix/issues/1114).
        env.setdefault("PMIX_MCA_gds", "hash")
        if os.geteuid() == 0:
            env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        root_host = self.hosts[0].name if self.hosts else "localhost"
        # horovodrun reads the workers' output through pipes. Rank 0 therefore writes its lines and its progress bar to
        # the terminal directly, unless the output is redirected to a file or rank 0 runs on another host.
        env.pop("LSTM_DIST_TERMINAL", None)
        if sys.stdout.isatty() and sys.stderr.isatty() and is_here(root_host):
            env["LSTM_DIST_TERMINAL"] = os.ttyname(sys.stderr.fileno())
        return env
