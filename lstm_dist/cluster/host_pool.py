"""The hosts that a job may use, and which of them answer now."""

import time
from typing import Callable, Collection, Dict, List, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.attempt import Attempt
from lstm_dist.cluster.discovery import Discovery
from lstm_dist.cluster.hosts import Host

STRIKES = 3  # failures in a row without a new checkpoint after which a host is left out
LEFT_OUT = 600.0  # seconds

# Returns why each host is not usable, by name, and nothing if it is: HostQuery.problems.
Ask = Callable[[Sequence[Host], Optional[Attempt], bool], Dict[str, List[str]]]


class Answers(NamedTuple):
    """What the hosts have answered.

    Attributes:
        usable: the hosts that can be used, in the order in which they are wanted.
        problems: why each of the others cannot, by name.
    """

    usable: Tuple[Host, ...]
    problems: Dict[str, str]


class HostPool:
    """The wanted hosts of a job, and the failures of each.

    Attributes:
        wanted: the hosts to use if they answer, the first of which leads.
    """

    def __init__(self, wanted: Sequence[Host], ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        """Make it.

        Args:
            wanted: hosts.
            ask: asks hosts whether they can be used.
            clock: in seconds.
        """
        self.wanted = tuple(wanted)
        self._ask, self._clock = ask, clock
        self._strikes: Dict[str, int] = {}
        self._until: Dict[str, float] = {}  # when a host that is left out may be used again

    @property
    def workers(self) -> int:
        """Return the number of workers of all wanted hosts."""
        return sum(host.slots for host in self.wanted)

    def update(self, discovery: Optional[Discovery]) -> None:
        """Take the hosts that a program prints now as the wanted ones, if there is one and it prints any."""
        hosts = discovery.look() if discovery else None
        self.wanted = tuple(hosts) if hosts else self.wanted

    def ask(self, hosts: Sequence[Host], attempt: Optional[Attempt] = None, is_patient: bool = False) -> Answers:
        """Ask hosts whether they can be used.

        Args:
            hosts: to ask.
            attempt: what earlier attempts at the same job have left running there is ended; None to end nothing.
            is_patient: whether hosts that have begun to reply may take long, because the job waits for them anyway.
        """
        problems = self._ask(hosts, attempt, is_patient) if hosts else {}
        usable = tuple(host for host in hosts if not problems[host.name])
        return Answers(usable, {name: reasons[0] for name, reasons in problems.items() if reasons})

    def missing(self, used: Collection[Host]) -> List[Host]:
        """Return the wanted hosts that are neither in use nor left out."""
        names = {host.name for host in used}
        return [host for host in self.wanted if host.name not in names and not self.is_left_out(host)]

    def choose(self, usable: Collection[Host], least: int) -> Tuple[Host, ...]:
        """Return the wanted ones among usable hosts, without those left out if the others have `least` workers."""
        names = {host.name for host in usable}
        known = tuple(host for host in self.wanted if host.name in names)
        good = tuple(host for host in known if not self.is_left_out(host))
        return good if workers_on(good) >= least else known

    def strike(self, names: Collection[str]) -> List[str]:
        """Count a failure of each of these hosts, and return those that are left out from now on."""
        for name in names:
            self._strikes[name] = self._strikes.get(name, 0) + 1
        return self.leave_out([name for name in names if self._strikes[name] >= STRIKES])

    def leave_out(self, names: Sequence[str]) -> List[str]:
        """Leave these hosts out for some time, and return them."""
        self._until.update({name: self._clock() + LEFT_OUT for name in names})
        self.forgive(names)
        return list(names)

    def forgive(self, names: Collection[str]) -> None:
        """Forget the failures of these hosts, which have taken part in making a checkpoint."""
        for name in names:
            self._strikes.pop(name, None)

    def is_left_out(self, host: Host) -> bool:
        """Return whether a host is left out because it has failed too often."""
        return self._clock() < self._until.get(host.name, -1.0)


def workers_on(hosts: Collection[Host]) -> int:
    """Return the number of workers of some hosts."""
    return sum(host.slots for host in hosts)
