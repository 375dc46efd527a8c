"""What an allreduce costs: a few constants, fitted to measurements, that predict it for other sizes and workers.

A message of n bytes takes alpha + n beta seconds (Hockney 1994), adding up included. An allreduce of n bytes over N
workers sends so many messages one after another, and so many bytes in all (P is the largest power of two up to N and
k = log2 P):

                          messages     bytes                where P < N, besides
    recursive doubling    k            k n                  1 + (N - P) / N, (1 + (N - P) / N) n
    Rabenseifner          2 k          2 (P - 1) / P n      3, 2 n
    ring                  2 (N - 1)    2 (N - 1) / N n

(Thakur, Rabenseifner, Gropp 2005; the ring: Patarasuk, Yuan 2009). All that is linear in alpha and beta. Every pair of
workers counts as equally near: what was measured within one host says nothing about a network. Between SHORT and LONG
a library changes algorithm and protocol several times; what was measured there is not fitted to, and taken for long.
Of short messages this is the mean over the workers: the N - P that hand in their part first are told the result last.
"""

from typing import Literal, NamedTuple, Sequence, Tuple

from lstm_dist.experiments.fitting import fit_costs

SHORT, LONG = 4096, 2**18  # bytes of a buffer: below and from where Open MPI 4.1 does the same over every network

# "mpi": what Open MPI 4.1 does, recursive doubling of short messages and Rabenseifner's algorithm of long ones.
# "ring": what Gloo does at every size, and in the main NCCL.
Algorithm = Literal["mpi", "ring"]


class Sample(NamedTuple):
    """One measured allreduce.

    Attributes:
        workers: at least 2.
        bytes: of the buffer that each of them gives.
        seconds: from when all had come until a worker has the result, the mean over the workers.
    """

    workers: int
    bytes: float
    seconds: float


class Link(NamedTuple):
    """The fitted constants, none below 0.

    Attributes:
        overhead: s a call, whatever N: what Horovod's negotiation costs even where the network is free.
        alpha_short: s a message, of buffers below SHORT.
        alpha: s a message, of longer ones: agreeing on a place for it first makes it three times alpha_short over TCP.
        beta: s a byte.
        algorithm: that of the allreduce.
        residuals: measured / fitted - 1, one a sample that was fitted to.
    """

    overhead: float
    alpha_short: float
    alpha: float
    beta: float
    algorithm: Algorithm = "mpi"
    residuals: Tuple[float, ...] = ()

    @property
    def without_latency(self) -> "Link":
        """The same where bytes cost what they do, and nothing else costs anything."""
        return self._replace(overhead=0.0, alpha_short=0.0, alpha=0.0)

    def seconds(self, workers: int, size: float) -> float:
        """Predicted time of an allreduce of `size` bytes; 0 for one worker, who has nobody to send to."""
        if workers == 1:
            return 0.0
        messages, sent = traffic(workers, size, self.algorithm)
        alpha = self.alpha_short if size < SHORT else self.alpha
        return self.overhead + messages * alpha + sent * self.beta


def traffic(workers: int, size: float, algorithm: Algorithm) -> Tuple[float, float]:
    """Messages, and their bytes in all, that an allreduce of `size` bytes sends one after another."""
    if algorithm == "ring":
        return 2 * (workers - 1), 2 * (workers - 1) / workers * size
    doublings = workers.bit_length() - 1
    power = 2**doublings
    # Workers beyond the power of two hand in their part before, and are given the result after.
    beyond = workers > power
    if size < SHORT:
        messages = doublings + beyond * (1 + (workers - power) / workers)
        return messages, messages * size
    return 2 * doublings + 3 * beyond, (2 * (power - 1) / power + 2 * beyond) * size


def fit_link(samples: Sequence[Sample], algorithm: Algorithm = "mpi", negotiated: bool = True) -> Link:
    """The constants of the least squared relative errors.

    One number of workers cannot tell what a call costs from what its messages cost. The messages then get all, and
    overhead is 0: predictions for more workers err on the slow side.

    Args:
        samples: of several sizes both below SHORT and from LONG on, better of several numbers of workers too.
        algorithm: that of the allreduce that was measured.
        negotiated: whether a call costs something besides its messages, as Horovod's does and MPI's own does not.

    Raises:
        ValueError: when a sample is unusable, or when all together do not determine the constants.
    """
    alone = [sample for sample in samples if sample.workers < 2]
    if alone:
        raise ValueError(f"{alone[0]}: one worker exchanges nothing; leave it out")
    clear = [sample for sample in samples if not SHORT <= sample.bytes < LONG]
    sent = [traffic(sample.workers, sample.bytes, algorithm) for sample in clear]
    short = [sample.bytes < SHORT for sample in clear]
    columns = {
        "overhead": [1.0] * len(clear),
        "alpha_short": [messages if is_short else 0.0 for is_short, (messages, _) in zip(short, sent)],
        "alpha": [0.0 if is_short else messages for is_short, (messages, _) in zip(short, sent)],
        "beta": [size for _, size in sent],
    }
    if not negotiated or len({sample.workers for sample in clear}) == 1:
        del columns["overhead"]
    costs = fit_costs(columns, [sample.seconds for sample in clear])
    link = Link(costs.get("overhead", 0.0), costs["alpha_short"], costs["alpha"], costs["beta"], algorithm)
    return link._replace(residuals=tuple(s.seconds / link.seconds(s.workers, s.bytes) - 1 for s in clear))
