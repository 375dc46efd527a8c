"""Variables of a launcher that has ended, which a shell, a container or a saved environment may still hold."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Mapping, MutableMapping
from urllib.parse import urlsplit

from lstm_dist.cluster.launch_env import LAUNCHER_VARIABLES, Launch, detect
from lstm_dist.cluster.launcher_watch import parent_of
from lstm_dist.errors import ExitStatus, UserError

_CONNECT = 2.0  # seconds
_SOCKETS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"  # state of a socket in these tables
_WITHOUT_PMIX = ("OMPI_MCA_orte_hnp_uri", "OMPI_MCA_orte_local_daemon_uri")  # servers of an Open MPI without PMIx


def drop_leftovers(environ: MutableMapping[str, str]) -> None:
    """Remove the variables of launchers that have ended, so that `detect` finds a launcher that is running, or none.

    With them goes HOROVOD_CONTROLLER, which horovodrun sets for its workers.

    Raises:
        UserError: naming the variables, when they say that this process is one of several.
    """
    launch = detect(environ)
    while launch.name != "none" and has_ended(launch, environ):
        _, *names = next(signs for signs in LAUNCHER_VARIABLES if signs[0] == launch.name)
        if launch.size > 1:
            first, second = (f"{name}={environ[name]}" for name in names[:2])
            raise UserError(
                f"{first} and {second} are left over from a job of {launch.name} that has ended: run "
                f"`unset {names[0]} {names[1]}`, or use a new shell",
                ExitStatus.BAD_CONFIG,
            )
        for name in [*names, "HOROVOD_CONTROLLER"]:
            environ.pop(name, None)
        launch = detect(environ)


def has_ended(launch: Launch, environ: Mapping[str, str]) -> bool:
    """Return whether nothing answers where a launcher says that its workers reach it; False if that is unknown."""
    if launch.name == "horovodrun":
        address, port = (environ.get(f"HOROVOD_GLOO_RENDEZVOUS_{part}", "") for part in ("ADDR", "PORT"))
        return not (address and port.isdigit()) or _refuses(address, int(port))
    if launch.name == "mpiexec":
        if "PMI_FD" in environ:
            return _is_closed(environ["PMI_FD"])
        return not any(name in environ for name in ("PMI_PORT", "PMI_CONTROL_PORT"))
    servers = [value for name, value in environ.items() if name.startswith("PMIX_SERVER_URI")]
    if servers:
        ports = [urlsplit(server.rpartition(";")[2]).port for server in servers if ";tcp" in server]
        return bool(ports) and not any(map(_is_listening, filter(None, ports)))
    if launch.name == "mpirun":
        return not any(name in environ for name in _WITHOUT_PMIX)
    return not _is_child_of("slurmstepd")


def _refuses(address: str, port: int) -> bool:
    """Return whether an address can be reached, but has no server at the port, or cannot be reached at once."""
    try:
        socket.create_connection((address, port), _CONNECT).close()
    except socket.timeout:  # a busy server
        return False
    except OSError:
        return True
    return False


def _is_listening(port: int) -> bool:
    """Return whether a process of this host listens on a TCP port; True if that is unknown.

    PMIx's server, which is on the same host, would report a connection that is closed again.
    """
    local, tables = f":{port:04X}", []
    for path in _SOCKETS:
        with suppress(OSError):
            tables.append(path.read_text(encoding="ascii"))
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return not tables or any(row[1].endswith(local) and row[3] == _LISTENING for row in rows)


def _is_closed(descriptor: str) -> bool:
    """Return whether a number is that of no open file; False if it is none."""
    return descriptor.isdigit() and not Path(f"/proc/self/fd/{descriptor}").exists()


def _is_child_of(program: str) -> bool:
    """Return whether a program is among the ancestors of this process; True if one of them cannot be read."""
    pid = os.getppid()
    try:
        while pid > 1:
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() == program:
                return True
            pid = parent_of(pid)
    except OSError:  # /proc may hide the processes of other users
        return True
    return False
