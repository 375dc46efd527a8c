"""Parsing of host lists."""

from pathlib import Path

import pytest

from lstm_dist.cluster.hosts import (
    Host,
    is_here,
    parse_hosts,
    parse_interface,
    read_hostfile,
)
from lstm_dist.errors import ExitStatus, UserError


def test_hosts_flag_is_parsed():
    assert parse_hosts("node1:4,node-2.site.org:16, 10.0.0.3") == [
        Host("node1", 4), Host("node-2.site.org", 16), Host("10.0.0.3", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "a:", "a:0", "a:-1", "a:x", "a:4,", "a:4;b", "-oX:1", "a b", "a:4 slots=2", "[::1]:2", "u@h:1", "雨:1"]
)
def test_invalid_hosts_are_refused(text: str):
    with pytest.raises(UserError, match=r"^-H .* should be a host and its number of workers, such as node1:4$"):
        parse_hosts(text)


def test_hostfile_may_have_blank_lines_and_comments(tmp_path: Path):
    file = tmp_path / "hosts"
    file.write_text("\n# rack 1\n  node1:4  # the fast one\nnode2 slots=8\n\nnode3\n")
    assert read_hostfile(file) == [Host("node1", 4), Host("node2", 8), Host("node3", 1)]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_of_a_hostfile_is_skipped(tmp_path: Path, codec: str):
    (tmp_path / "hosts").write_bytes("node1:4\r\nnode2\r\n".encode(codec))
    assert read_hostfile(tmp_path / "hosts") == [Host("node1", 4), Host("node2", 1)]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (b"node1:4\nnode2 slot=4\n", ExitStatus.USAGE, ", line 2: 'node2 slot=4' should be a host"),
        (b"# nobody\n\n", ExitStatus.BAD_CONFIG, ": lists no host"),
        (b"a:1\na:2\n", ExitStatus.USAGE, ": a is listed twice: list it once, with all its workers"),
        (b"\xff\n", ExitStatus.BAD_CONFIG, ": is not a UTF-8 text file"),
    ],
)
def test_invalid_hostfile_is_refused(tmp_path: Path, text: bytes, status: ExitStatus, words: str):
    (tmp_path / "hosts").write_bytes(text)
    with pytest.raises(UserError) as caught:
        read_hostfile(tmp_path / "hosts")
    assert str(caught.value).startswith(f"--hostfile {tmp_path}/hosts{words}")
    assert caught.value.status == status


def test_interfaces_are_validated():
    assert parse_interface("eth0,ib0.8001") == "eth0,ib0.8001"
    for text in ("", "eth0,", "-x", "a b", "eth0;x", "a" * 16):
        with pytest.raises(UserError, match="should be a network interface such as eth0") as caught:
            parse_interface(text)
        assert caught.value.status == ExitStatus.USAGE


def test_this_host_is_recognized():
    assert is_here("localhost")
    assert is_here("127.0.0.1")
    assert not is_here("192.0.2.1")  # reserved for documentation by RFC 5737, so no host has it
    assert not is_here("a" * 64)
