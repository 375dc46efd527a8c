"""Model the cost of an allreduce with a few constants, fitted to measurements, to predict other sizes and workers.

A message of n bytes takes alpha + n beta seconds (Hockney 1994), including the summation. On its critical path, an
allreduce of n bytes over N workers sends (P is the largest power of two up to N, k = log2 P):

                          messages     bytes                in addition, if P < N
    recursive doubling    k            k n                  1 + (N - P) / N, (1 + (N - P) / N) n
    Rabenseifner          2 k          2 (P - 1) / P n      3, 2 n
    ring                  2 (N - 1)    2 (N - 1) / N n

(Thakur, Rabenseifner, Gropp 2005; the ring: Patarasuk, Yuan 2009). All costs are linear in alpha and beta. All pairs
of workers are assumed equally distant; host_links.py has the case of several workers on each of several hosts. Between
SHORT and LONG, libraries switch algorithm and protocol several times; these sizes are left out of the fit, and
predicted as long. Short-message costs are means over the workers, as the N - P extra workers receive the result last.
"""

from typing import List, Literal, NamedTuple, Sequence, Tuple

from lstm_dist.experiments.fitting import fit_costs

SHORT, LONG = 4096, 2**18  # bytes; below SHORT and from LONG on, Open MPI 4.1 uses the same algorithm on every network
SEPARABLE = 1.5  # the cost of a call is only fitted to numbers of messages that differ by at least this factor

# "mpi": Open MPI 4.1, with recursive doubling for short messages and Rabenseifner's algorithm for long ones.
# "ring": Gloo at every size, and mostly NCCL.
Algorithm = Literal["mpi", "ring"]


class Sample(NamedTuple):
    """One measured allreduce.

    Attributes:
        workers: at least 2.
        bytes: size of each worker's buffer.
        seconds: from the arrival of the last worker until a worker has the result, averaged over the workers.
        per_host: workers on each host but the last, which may have fewer.
    """

    workers: int
    bytes: float
    seconds: float
    per_host: int = 1


Traffic = Tuple[float, float]  # messages on the critical path, and their total bytes


class Link(NamedTuple):
    """The fitted constants, all >= 0.

    Attributes:
        overhead: s per call for any N: the cost of Horovod's negotiation even on an infinitely fast network.
        alpha_short: s per message of buffers below SHORT.
        alpha: s per message of longer buffers; over TCP about three times alpha_short, due to the rendezvous handshake.
        beta: s per byte.
        algorithm: the allreduce algorithm.
        residuals: measured / fitted - 1, one per fitted sample.
    """

    overhead: float
    alpha_short: float
    alpha: float
    beta: float
    algorithm: Algorithm = "mpi"
    residuals: Tuple[float, ...] = ()

    @property
    def without_latency(self) -> "Link":
        """Return a link with the same cost per byte and no other costs."""
        return self._replace(overhead=0.0, alpha_short=0.0, alpha=0.0)

    def seconds(self, workers: int, size: float) -> float:
        """Predict the time of an allreduce of `size` bytes; 0 for one worker, which has nothing to send."""
        if workers == 1:
            return 0.0
        return self.overhead + self.transfer(size, traffic(workers, size, self.algorithm))

    def transfer(self, size: float, sent: Traffic) -> float:
        """Return the time of these messages, which belong to an allreduce of `size` bytes."""
        messages, total = sent
        return messages * (self.alpha_short if size < SHORT else self.alpha) + total * self.beta


def traffic(workers: int, size: float, algorithm: Algorithm) -> Traffic:
    """Return the messages, and their total bytes, on the critical path of an allreduce of `size` bytes."""
    if algorithm == "ring":
        return 2 * (workers - 1), 2 * (workers - 1) / workers * size
    doublings = workers.bit_length() - 1
    power = 2**doublings
    # Workers beyond the power of two send their part first, and receive the result last.
    beyond = workers > power
    if size < SHORT:
        messages = doublings + beyond * (1 + (workers - power) / workers)
        return messages, messages * size
    return 2 * doublings + 3 * beyond, (2 * (power - 1) / power + 2 * beyond) * size


def fit_link(samples: Sequence[Sample], algorithm: Algorithm = "mpi", negotiated: bool = True) -> Link:
    """Fit the constants by least squares of the relative errors, for workers that are all equally distant.

    Args:
        samples: several sizes both below SHORT and from LONG on, preferably for several N.
        algorithm: the measured allreduce algorithm.
        negotiated: whether a call has a cost besides its messages, as with Horovod but not with plain MPI.

    Raises:
        ValueError: if a sample is invalid, or if the samples do not determine the constants.
    """
    used = fitted_samples(samples)
    sent = [traffic(sample.workers, sample.bytes, algorithm) for sample in used]
    link = fit_constants(used, sent, [0.0] * len(used), algorithm, negotiated)
    return link._replace(residuals=tuple(s.seconds / link.seconds(s.workers, s.bytes) - 1 for s in used))


def fitted_samples(samples: Sequence[Sample]) -> List[Sample]:
    """Return the samples that a fit uses.

    Raises:
        ValueError: if a sample has one worker.
    """
    alone = [sample for sample in samples if sample.workers < 2]
    if alone:
        raise ValueError(f"{alone[0]}: one worker does not communicate; leave it out")
    return [sample for sample in samples if not SHORT <= sample.bytes < LONG]


def fit_constants(
    samples: Sequence[Sample], sent: Sequence[Traffic], known: Sequence[float], algorithm: Algorithm, negotiated: bool
) -> Link:
    """Fit the constants of a link over which each sample sends this traffic, and otherwise takes the known seconds.

    Similar numbers of messages, as of a single N, cannot separate the cost of a call from that of its messages. All of
    it is then attributed to messages, and overhead is 0, so that predictions for more workers err on the slow side.

    Raises:
        ValueError: if a sample is invalid, or if the samples do not determine the constants.
    """
    short = [sample.bytes < SHORT for sample in samples]
    columns = {
        "overhead": [1.0] * len(samples),
        "alpha_short": [messages if is_short else 0.0 for is_short, (messages, _) in zip(short, sent)],
        "alpha": [0.0 if is_short else messages for is_short, (messages, _) in zip(short, sent)],
        "beta": [size for _, size in sent],
    }
    counts = [messages for messages in columns["alpha"] if messages]
    if not negotiated or not counts or max(counts) < SEPARABLE * min(counts):
        del columns["overhead"]
    costs = fit_costs(columns, [sample.seconds for sample in samples], known)
    return Link(costs.get("overhead", 0.0), costs["alpha_short"], costs["alpha"], costs["beta"], algorithm)
