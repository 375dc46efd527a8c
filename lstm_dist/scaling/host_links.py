"""Model an allreduce of several workers on each of several hosts, with one link within a host and one between hosts.

Ranks fill the hosts in order, k on each; the last host may have fewer. A message takes the link that connects its two
workers, and all messages of a host to other hosts share its network card, so that m workers that send n bytes each at
the same time take the time of m n bytes on the link between hosts.

- A ring of N workers on h hosts crosses from host to host h times. A worker's part passes all links in turn, so that
  h / N of the messages on the critical path are between hosts. Bytes flow on all links at the same time, no faster than
  on the slowest one, which is taken to be the one between hosts: its network card carries one part per round.
- Open MPI's workers exchange with partners at a distance of 1, 2, 4, ... ranks. An exchange in which any partner is on
  another host takes as long as one between hosts, with as many bytes as the busiest network card sends.

A call of several hosts has an overhead of its own, as Horovod's negotiation then also crosses the link between them.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from lstm_dist.scaling.allreduce_model import (
    SHORT,
    Algorithm,
    Link,
    Sample,
    Traffic,
    fit_constants,
    fit_link,
    fitted_samples,
    traffic,
)

NONE: Traffic = (0.0, 0.0)


class HostTraffic(NamedTuple):
    """Messages and bytes on the critical path of an allreduce, within a host and between hosts."""

    within: Traffic
    between: Traffic


def host_traffic(workers: int, per_host: int, size: float, algorithm: Algorithm) -> HostTraffic:
    """Return the traffic of an allreduce of `size` bytes of workers that fill hosts of `per_host`."""
    messages, sent = traffic(workers, size, algorithm)
    if workers <= per_host:
        return HostTraffic((messages, sent), NONE)
    if algorithm == "ring":
        between = messages * -(-workers // per_host) / workers
        return HostTraffic((messages - between, 0.0), (between, sent))
    steps = _steps_of_open_mpi(workers, per_host, size)
    inside = [(messages, sent) for messages, sent, senders in steps if not senders]
    outside = [(messages, sent * senders) for messages, sent, senders in steps if senders]
    return HostTraffic(_total(inside), _total(outside))


def _total(parts: Sequence[Traffic]) -> Traffic:
    return sum(messages for messages, _ in parts), sum(sent for _, sent in parts)


def _steps_of_open_mpi(workers: int, per_host: int, size: float) -> "List[tuple[float, float, int]]":
    """Return messages and bytes of each step, and the workers of the busiest host that send to another in that step."""
    power = 2 ** (workers.bit_length() - 1)
    beyond = workers - power
    (messages, sent), (least, least_sent) = (traffic(number, size, "mpi") for number in (workers, power))
    # Neighbours beyond the power of two join first and separate last; they share a host if its workers are even.
    steps = [(messages - least, sent - least_sent, per_host % 2)]
    members = np.concatenate([np.arange(0, 2 * beyond, 2), np.arange(2 * beyond, workers)])
    hosts = members // per_host
    for step in range(power.bit_length() - 1):
        partners = hosts[np.arange(power) ^ 2**step]
        senders = int(np.bincount(hosts[hosts != partners], minlength=1).max())
        steps.append((1, size, senders) if size < SHORT else (2, size / 2**step, senders))
    return steps


class HostLinks(NamedTuple):
    """The fitted links of one communication path; at least one of them is known.

    Attributes:
        within: the link within a host; None if no allreduce with all workers on one host was measured.
        between: the link between hosts; None if no allreduce with workers on several hosts was measured.
        per_host: workers per host in `seconds`. If one link is unknown, all workers are assumed to be as distant as the
            measured ones, for any workers per host.
    """

    within: Optional[Link]
    between: Optional[Link]
    per_host: int = 1

    @property
    def known(self) -> Tuple[Link, ...]:
        """Return the measured links."""
        return tuple(link for link in (self.within, self.between) if link)

    @property
    def without_latency(self) -> "HostLinks":
        """Return links with the same costs per byte and no other costs."""
        within, between = (link and link.without_latency for link in (self.within, self.between))
        return self._replace(within=within, between=between)

    def seconds(self, workers: int, size: float) -> float:
        """Predict the time of an allreduce of `size` bytes; 0 for one worker, which has nothing to send."""
        if not (self.within and self.between):
            return self.known[0].seconds(workers, size)
        if workers <= self.per_host:
            return self.within.seconds(workers, size)
        sent = host_traffic(workers, self.per_host, size, self.between.algorithm)
        both = self.within.transfer(size, sent.within) + self.between.transfer(size, sent.between)
        return self.between.overhead + both

    def bounds(self, workers: int, size: float) -> "tuple[HostLinks, HostLinks]":
        """Return two versions, whose latency is all per call, and all per message.

        With one known link, all three cost the same at the measured workers. With two, the first costs no more and the
        second no less than this one.

        Args:
            workers: the largest measured number of workers.
            size: bytes of the allreduce.
        """
        together = max(2, min(workers, self.per_host)) if self.between else workers
        within = self.within and _bounds(self.within, traffic(together, size, self.within.algorithm)[0], size)
        between = self.between and _bounds(self.between, self._messages_between(self.between, workers, size), size)
        low, high = (
            self._replace(within=within and within[edge], between=between and between[edge]) for edge in (0, 1)
        )
        return low, high

    def _messages_between(self, link: Link, workers: int, size: float) -> float:
        if not self.within:
            return traffic(workers, size, link.algorithm)[0]
        return host_traffic(max(workers, self.per_host + 1), self.per_host, size, link.algorithm).between[0]


def _bounds(link: Link, messages: float, size: float) -> "tuple[Link, Link]":
    """Return two links that cost the same for this number of messages: latency all per call, and all per message."""
    none = link.without_latency
    fixed = link.overhead + link.transfer(size, (messages, 0.0))
    return none._replace(overhead=fixed), none._replace(alpha_short=fixed / messages, alpha=fixed / messages)


def fit_host_links(samples: Sequence[Sample], algorithm: Algorithm = "mpi", negotiated: bool = True) -> HostLinks:
    """Fit the link within a host to the samples of one host, then the link between hosts to the others.

    Without samples of one host, the samples of several are fitted as if all their workers were equally distant.

    Args:
        samples: several sizes both below SHORT and from LONG on, preferably for several N, on one host and on several.
        algorithm: the measured allreduce algorithm.
        negotiated: whether a call has a cost besides its messages, as with Horovod but not with plain MPI.

    Raises:
        ValueError: if a sample is invalid, or if the samples do not determine the constants.
    """
    together = [sample for sample in samples if sample.workers <= sample.per_host]
    apart = [sample for sample in samples if sample.workers > sample.per_host]
    per_host = max((sample.per_host for sample in apart or together), default=1)
    within = fit_link(together, algorithm, negotiated) if together or not apart else None
    between = None
    if apart:
        between = _fit_between(apart, within, negotiated) if within else fit_link(apart, algorithm, negotiated)
    return HostLinks(within, between, per_host)


def _fit_between(samples: Sequence[Sample], within: Link, negotiated: bool) -> Link:
    """Fit the link between hosts to what is left of the samples' time without their messages within a host."""
    used = fitted_samples(samples)
    sent = [host_traffic(sample.workers, sample.per_host, sample.bytes, within.algorithm) for sample in used]
    known = [within.transfer(sample.bytes, traffic.within) for sample, traffic in zip(used, sent)]
    between = fit_constants(used, [traffic.between for traffic in sent], known, within.algorithm, negotiated)
    links = [HostLinks(within, between, sample.per_host) for sample in used]
    fitted = [link.seconds(sample.workers, sample.bytes) for link, sample in zip(links, used)]
    return between._replace(residuals=tuple(sample.seconds / time - 1 for sample, time in zip(used, fitted)))
