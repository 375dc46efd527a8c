"""Variables of a launcher that has ended are dropped or named; those of one that runs are kept."""

import os
import re
import socket
from pathlib import Path
from typing import Dict, Iterator

import pytest

from lstm_dist.cluster import leftovers
from lstm_dist.cluster.launch_env import detect
from lstm_dist.cluster.leftovers import drop_leftovers
from lstm_dist.errors import UserError

PORT = "{port}"  # replaced by a port at which a server listens


def horovodrun(rank: int, size: int, port: str) -> Dict[str, str]:
    server = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port}
    return {"HOROVOD_RANK": str(rank), "HOROVOD_SIZE": str(size), "HOROVOD_LOCAL_RANK": str(rank), **server}


def mpirun(rank: int, size: int, port: str) -> Dict[str, str]:
    server = {"PMIX_SERVER_URI21": f"4031709184.0;tcp4://127.0.0.1:{port}"}
    return {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size), **server}


@pytest.fixture
def server() -> Iterator[str]:
    """Return a port at which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.fixture
def closed() -> str:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def test_variables_of_a_single_worker_are_dropped(closed: str):
    environ = {**horovodrun(0, 1, closed), **mpirun(0, 1, closed), "PMI_RANK": "0", "PMI_SIZE": "1", "HOME": "/root"}
    environ["HOROVOD_CONTROLLER"] = "mpi"
    drop_leftovers(environ)
    assert detect(environ).name == "none"
    assert "HOROVOD_CONTROLLER" not in environ
    assert environ["HOME"] == "/root"


def test_running_launcher_is_found_behind_one_that_has_ended(server: str, closed: str):
    environ = {**horovodrun(0, 1, closed), **mpirun(1, 2, server)}
    drop_leftovers(environ)
    assert (detect(environ).name, detect(environ).rank, detect(environ).size) == ("mpirun", 1, 2)


@pytest.mark.parametrize("launcher", [horovodrun, mpirun])
def test_variables_of_a_running_launcher_are_kept(launcher, server: str):
    environ = launcher(1, 2, server)
    before = dict(environ)
    drop_leftovers(environ)
    assert environ == before


@pytest.mark.parametrize("name", ["OMPI_MCA_orte_hnp_uri", "OMPI_MCA_orte_local_daemon_uri"])
def test_variables_of_an_open_mpi_without_pmix_are_kept(name: str):
    environ = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", name: "61210624.0;tcp://10.0.0.2:41573"}
    before = dict(environ)
    drop_leftovers(environ)
    assert environ == before


def test_variables_are_kept_if_the_sockets_of_this_host_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
):
    monkeypatch.setattr(leftovers, "_SOCKETS", (tmp_path / "tcp", tmp_path / "tcp6"))
    environ = mpirun(1, 2, closed)
    drop_leftovers(environ)
    assert environ == mpirun(1, 2, closed)


def test_variables_of_srun_are_kept_if_its_processes_are_hidden(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getppid", lambda: 2**22 + 1)  # more than the largest process id
    environ = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    drop_leftovers(environ)
    assert detect(environ).name == "srun"


def test_open_descriptor_is_that_of_a_running_mpiexec():
    reader, writer = os.pipe()
    environ = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": str(reader)}
    drop_leftovers(environ)
    os.close(reader)
    os.close(writer)
    with pytest.raises(UserError, match=r"^PMI_RANK=1 and PMI_SIZE=2 are left over from a job of mpiexec"):
        drop_leftovers(environ)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (horovodrun(1, 2, PORT), "HOROVOD_RANK HOROVOD_SIZE"),
        ({"HOROVOD_RANK": "3", "HOROVOD_SIZE": "4"}, "HOROVOD_RANK HOROVOD_SIZE"),
        (mpirun(0, 2, PORT), "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_RANK": "7", "OMPI_COMM_WORLD_SIZE": "8"}, "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE"),
        ({"PMI_RANK": "2", "PMI_SIZE": "3", "PMI_FD": "873"}, "PMI_RANK PMI_SIZE"),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID SLURM_STEP_NUM_TASKS"),
    ],
)
def test_variables_of_one_of_several_workers_are_named(environ: Dict[str, str], names: str, closed: str):
    environ = {name: value.replace(PORT, closed) for name, value in environ.items()}
    given = " and ".join(f"{name}={environ[name]}" for name in names.split())
    with pytest.raises(UserError, match=rf"^{re.escape(given)} are left over from .*: run `unset {names}`, or use"):
        drop_leftovers(environ)
