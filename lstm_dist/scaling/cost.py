"""What the jobs of a point cost, and what training costs at their rate: node-hours, core-hours and energy."""

from typing import List, NamedTuple, Sequence

from lstm_dist.experiments.stats import UNKNOWN, Estimate, mean
from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.throughput import JobGroup, Throughput

CHARS = 10**9  # that training is priced for
HOUR = 3600.0  # seconds


class Spent(NamedTuple):
    """What jobs took, from the launcher's start to its end."""

    node_hours: float
    core_hours: float


class Cost(NamedTuple):
    """The cost of one mode and number of workers.

    Attributes:
        hosts, cores: that the workers were on.
        spent: by all jobs of the group.
        chars_per_sec: of all workers together, in the epochs that count; the start of a job is not among them.
        joules: mean of the jobs that know theirs; nan if none does.
        chars_per_joule: of these jobs; unknown if there are none.
    """

    group: JobGroup
    hosts: int
    cores: int
    spent: Spent
    chars_per_sec: Estimate
    joules: float
    chars_per_joule: Estimate

    @property
    def hours(self) -> Estimate:
        """Return the hours of training on CHARS characters."""
        return _inverse(self.chars_per_sec).scaled(CHARS / HOUR)

    @property
    def node_hours(self) -> Estimate:
        """Return the node-hours of training on CHARS characters."""
        return self.hours.scaled(self.hosts)

    @property
    def core_hours(self) -> Estimate:
        """Return the core-hours of training on CHARS characters."""
        return self.hours.scaled(self.cores)

    @property
    def chars_per_node_hour(self) -> Estimate:
        """Return the characters that are trained on in a node-hour."""
        return self.chars_per_sec.scaled(HOUR / self.hosts)

    @property
    def kilowatt_hours(self) -> Estimate:
        """Return the energy of training on CHARS characters."""
        return _inverse(self.chars_per_joule).scaled(CHARS / (1000 * HOUR))


def _inverse(value: Estimate) -> Estimate:
    return Estimate(1 / value.value, 1 / value.high, 1 / value.low, tuple(1 / number for number in value.repeats))


def spent(rows: Sequence[TrainRow]) -> Spent:
    """Return what jobs took, without those that failed before it was known on which hosts they ran."""
    return Spent(
        sum(row.seconds * row.hosts for row in rows) / HOUR, sum(row.seconds * row.cores for row in rows) / HOUR
    )


def costs(throughputs: Sequence[Throughput]) -> List[Cost]:
    """Return the cost of every group whose hosts and cores are known."""
    return [_cost(rate) for rate in throughputs if all(row.hosts and row.cores for row in rate.group.rows)]


def _cost(rate: Throughput) -> Cost:
    rows = rate.group.rows
    known = [row.energy for row in rows if row.energy and row.energy.joules]
    joules = [energy.joules or 0.0 for energy in known]
    return Cost(
        group=rate.group,
        hosts=max(row.hosts for row in rows),
        cores=max(row.cores for row in rows),
        spent=spent(rows),
        chars_per_sec=rate.chars_per_sec,
        joules=mean(joules).value if joules else UNKNOWN.value,
        chars_per_joule=mean([e.chars / j for e, j in zip(known, joules)]) if joules else UNKNOWN,
    )


def energy_sources(rows: Sequence[TrainRow], is_known: bool) -> List[str]:
    """Return where the energy of jobs comes from, or why it is unknown, each once."""
    found = [
        row.energy.source if row.energy else "" for row in rows if bool(row.energy and row.energy.joules) == is_known
    ]
    return list(dict.fromkeys(text or "it was not recorded" for text in found))
