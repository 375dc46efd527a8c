"""Which hosts a job uses: those that answer, without those that fail again and again."""

from typing import Dict, List, Optional, Sequence

import pytest

from lstm_dist.attempt import Attempt
from lstm_dist.cluster.host_pool import LEFT_OUT, Answers, HostPool, workers_on
from lstm_dist.cluster.hosts import Host

ONE, TWO, THREE = HOSTS = Host("n1", 2), Host("n2", 2), Host("n3", 1)


class Net:
    """A network on which some hosts do not answer, and a clock."""

    def __init__(self) -> None:
        self.down: Dict[str, str] = {}
        self.asked: List[List[str]] = []
        self.now = 1000.0

    def ask(self, hosts: Sequence[Host], attempt: Optional[Attempt], _: bool) -> Dict[str, List[str]]:  # noqa: ARG002
        self.asked.append([host.name for host in hosts])
        return {host.name: [self.down[host.name]] if host.name in self.down else [] for host in hosts}


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def pool(net: Net) -> HostPool:
    return HostPool(HOSTS, net.ask, lambda: net.now)


def test_all_hosts_are_asked_at_once(net: Net, pool: HostPool):
    net.down["n2"] = "it is dead"
    assert pool.ask(pool.wanted) == Answers((ONE, THREE), {"n2": "it is dead"})
    assert net.asked == [["n1", "n2", "n3"]]
    assert pool.ask([]) == Answers((), {})
    assert (pool.workers, workers_on([ONE, THREE])) == (5, 3)


def test_first_wanted_host_leads(pool: HostPool):
    assert pool.choose([THREE, TWO], 1) == (TWO, THREE)
    assert pool.choose([Host("n1", 7)], 1) == (ONE,)  # with as many workers as are wanted
    assert pool.missing([TWO]) == [ONE, THREE]


def test_host_that_has_failed_three_times_in_a_row_is_left_out_for_ten_minutes(net: Net, pool: HostPool):
    assert pool.strike(["n1"]) == pool.strike(["n1", "n2"]) == []
    pool.forgive(["n2"])
    assert pool.strike(["n1", "n2"]) == ["n1"]
    assert pool.is_left_out(ONE)
    assert pool.choose(HOSTS, 3) == (TWO, THREE)
    assert pool.missing([THREE]) == [TWO]
    net.now += LEFT_OUT - 1
    assert pool.is_left_out(ONE)
    net.now += 2
    assert pool.choose(HOSTS, 3) == HOSTS
    assert pool.strike(["n1"]) == []  # counted anew


def test_host_is_used_although_it_fails_if_the_others_are_too_few(pool: HostPool):
    pool.leave_out(["n1"])
    assert pool.choose(HOSTS, 4) == HOSTS


def test_wanted_hosts_are_replaced_by_discovered_ones(pool: HostPool):
    class Printed:
        hosts: Optional[List[Host]] = None

        def look(self) -> Optional[List[Host]]:
            return self.hosts

    printed = Printed()
    pool.update(None)
    pool.update(printed)  # which has failed
    assert pool.wanted == HOSTS
    printed.hosts = [TWO]
    pool.update(printed)
    assert pool.wanted == (TWO,)
