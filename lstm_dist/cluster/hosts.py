"""The hosts of a job that is started over ssh: parsing of host lists."""

import re
import socket
from pathlib import Path
from typing import List, NamedTuple, Optional

from lstm_dist.encoding import decode_unicode
from lstm_dist.errors import ExitStatus, UserError

_HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(?:(?::|\s+slots=)([1-9][0-9]{0,3}))?")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,14}")


class Host(NamedTuple):
    """A host and its number of workers."""

    name: str
    slots: int = 1

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


def parse_hosts(text: str) -> List[Host]:
    """Return the hosts of `-H host1:4,host2:4`; a host without a number runs one worker.

    Raises:
        UserError: naming the invalid entry.
    """
    return distinct([parse_host(part.strip(), f"-H {text}") for part in text.split(",")], f"-H {text}")


def read_hostfile(path: Path) -> List[Host]:
    """Read hosts from a file, one a line, as `host1:4` or `host1 slots=4`; skip blank lines and # comments.

    Raises:
        UserError: naming the file and, where one is, the invalid line.
    """
    where = f"--hostfile {path}"
    try:
        lines = decode_unicode(path.read_bytes()).splitlines()
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: is not a UTF-8 text file", ExitStatus.BAD_CONFIG) from None
    hosts = []
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip()
        if entry:
            hosts.append(parse_host(entry, f"{where}, line {number}"))
    if not hosts:
        raise UserError(f"{where}: lists no host: give one per line, such as node1:4", ExitStatus.BAD_CONFIG)
    return distinct(hosts, where)


def choose_hosts(given: Optional[str], hostfile: Optional[str]) -> List[Host]:
    """Return the hosts of `-H` or of `--hostfile`; none if neither is given.

    Raises:
        UserError: when both are given, or the given one is invalid.
    """
    if given is not None and hostfile is not None:
        raise UserError("--hostfile: cannot be combined with -H: give only one of them")
    if given is not None:
        return parse_hosts(given)
    return [] if hostfile is None else read_hostfile(Path(hostfile))


def parse_interface(text: str) -> str:
    """Return `text` if it is a network interface's name, or several separated by commas.

    Raises:
        UserError: when it is not.
    """
    if not all(_INTERFACE.fullmatch(name) for name in text.split(",")):
        raise UserError(f"--interface '{text}': should be a network interface such as eth0; `ip -br link` lists them")
    return text


def parse_host(entry: str, where: str) -> Host:
    """Return the host of one entry of a list, such as node1:4.

    Args:
        entry: without spaces around it.
        where: the flag or file that it is from.

    Raises:
        UserError: beginning with `where`, if it is invalid.
    """
    match = _HOST.fullmatch(entry)
    if not match:
        raise UserError(f"{where}: '{entry}' should be a host and its number of workers, such as node1:4")
    return Host(match[1], int(match[2] or 1))


def distinct(hosts: List[Host], where: str) -> List[Host]:
    """Return hosts of which no two have the same name.

    Raises:
        UserError: beginning with `where`, if two have.
    """
    names = [host.name for host in hosts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{where}: {twice} is listed twice: list it once, with all its workers")
    return hosts


def is_here(host: str) -> bool:
    """Return whether `host` is this machine, so that no ssh is needed."""
    try:  # only a local address can be bound
        address = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, UnicodeError):
        return False
    return True
