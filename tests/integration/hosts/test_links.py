"""The scaling analysis recovers the known rate and latency of one link; tests/links.py measures other links."""

from pathlib import Path

import pytest

from tests.links import LIMIT, judge, measure
from tests.support.network import Cable, Network, require_tools

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hosts")]


def test_known_link_is_recovered_and_step_times_are_predicted(real: Path, tmp_path: Path):
    assert real.exists()
    require_tools("tc")
    cable = Cable("100mbit", 2e-3)
    network = Network(tmp_path, 3, cable)
    try:
        quantities = judge(cable, measure(network, tmp_path / "out", 1, "--largest=4", "--seconds=0.1"))
    finally:
        network.close()
    assert [quantity.name for quantity in quantities][2:] == ["step of 2, ms", "step of 3, ms"]
    for quantity in quantities:
        assert abs(quantity.error) < LIMIT, quantities
