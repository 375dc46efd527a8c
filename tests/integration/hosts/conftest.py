"""Provide three hosts, shared by all tests of a session."""

from typing import Iterator

import pytest

from tests.support.network import Network, require_tools


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    require_tools()
    network = Network(tmp_path_factory.mktemp("network"), 3)
    yield network
    network.close()
