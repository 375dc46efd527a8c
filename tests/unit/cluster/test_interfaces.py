"""The network interfaces of this process's connections."""

import socket

from lstm_dist.cluster.interfaces import connected_interfaces


def test_connection_over_loopback_is_found():
    before = connected_interfaces(to_other_hosts=False)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert "lo" in (connected_interfaces(to_other_hosts=False) or [])
        assert "lo" not in (connected_interfaces(to_other_hosts=True) or [])
    assert connected_interfaces(to_other_hosts=False) == before
