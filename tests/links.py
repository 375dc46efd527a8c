"""Compare predicted with measured step times of hosts behind links of a known rate and latency; run by hand.

    .venv/bin/python -m tests.links                 four links, two to four hosts: about twenty minutes on two cores
    .venv/bin/python -m tests.links --only=1gbit    the links of this rate

Each link is measured with jobs/scale.py and analysed as jobs/report.py does. The latency is that of plain MPI, because
plain MPI sends without negotiating first. The exit status is 1 if any relative error is above LIMIT.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List, NamedTuple

from tqdm import tqdm

from lstm_dist.scaling.analysis import Findings, analyse
from lstm_dist.scaling.records import read_rows
from tests.support.launchers import ENVIRONMENT
from tests.support.network import Cable, Network
from tests.support.programs import ROOT, run

RATES, LATENCIES, HOSTS = ("100mbit", "1gbit"), (0.1e-3, 2e-3), 4
LIMIT = 0.15
# Enough warm-up for TCP to reach the rate of a fast link with a high latency before the first counted epoch.
POINT = ("--mode=weak", "--repeat=1", "--streams=8", "--steps=30", "--epochs=3", "--time-every=3")
# Large enough for two to four hosts to exchange only the rows of W_x that a batch touches.
MODEL = ("--", "--hidden-size=128")


class Quantity(NamedTuple):
    """A quantity with its true or measured value, and the value that was estimated or predicted."""

    name: str
    expected: float
    found: float

    @property
    def error(self) -> float:
        """Return the relative error of the value found."""
        return self.found / self.expected - 1


def measure(network: Network, out: Path, *network_flags: str) -> Findings:
    """Measure this network with jobs/scale.py and return the findings."""
    count = len(network.hosts)
    common = [f"--workers={','.join(map(str, range(1, count + 1)))}", f"--out={out}", "--controller=gloo"]
    common += ["-H", ",".join(f"{host.name}:1" for host in network.hosts), "--interface=eth0", *POINT]
    # Ranks of several hosts share this machine's two cores, so a waiting rank must not keep another from computing.
    variables = {**ENVIRONMENT, "OMPI_MCA_mpi_yield_when_idle": "1", "PYTHON": None}
    for what, flags in (("network", network_flags), ("training", ())):
        command = [sys.executable, str(ROOT / "jobs" / "scale.py"), what, *common, *flags, *MODEL]
        done = run(network.hosts[0].inside(*command), timeout=1800, env=variables)
        assert done.returncode == 0, done.stdout + done.stderr
    return analyse(read_rows(out, allow_mixed=False))


def judge(cable: Cable, found: Findings) -> List[Quantity]:
    """Return the link as configured and as fitted, and the steps as measured and as predicted."""
    links = {fit.path: fit.link for fit in found.link_fits}
    horovod, plain = links["horovod-gloo"], links["mpi"]
    assert horovod
    assert plain
    (weak,) = found.modes
    sent = [step.group.bytes for step in weak.steps]
    assert sent == sorted(set(sent)), f"every number of hosts has more rows than fewer: {sent}"
    assert sent[-1] < found.rows.experiment.bytes, "not all parameters"
    return [
        Quantity("latency, ms", 1e3 * cable.latency, 1e3 * plain.alpha_short),
        Quantity("Mbit/s", cable.mbit, 8e-6 / horovod.beta),
        *(
            Quantity(f"step of {step.predicted.workers}, ms", 1e3 * step.measured, 1e3 * step.predicted.step)
            for step in weak.steps
            if step.predicted.workers > 1
        ),
    ]


def trials(rate: str) -> Iterator[List[Quantity]]:
    """Measure all links of this rate, or of every rate if it is empty."""
    cables = [Cable(*each) for each in itertools.product([rate] if rate else RATES, LATENCIES)]
    for cable in tqdm(cables, desc="links", unit="link"):
        with tempfile.TemporaryDirectory(prefix="links") as place:
            network = Network(Path(place), HOSTS, cable)
            try:
                yield judge(cable, measure(network, Path(place) / "out", "--largest=8", "--seconds=0.5"))
            finally:
                network.close()


def main() -> int:
    """Print a table with the true value, the value found and the relative error of every quantity."""
    parser = argparse.ArgumentParser(prog="python -m tests.links", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=RATES, default="", help="links of this rate")
    lines, wrong = [], 0
    for quantities in trials(parser.parse_args().only):
        if not lines:
            lines = [f"| {' | '.join(q.name for q in quantities)} |", "| --- " * len(quantities) + "|"]
            tqdm.write("\n".join(lines))
        cells = [f"{q.expected:.4g}: {q.found:.4g} ({q.error:+.0%})" for q in quantities]
        tqdm.write(f"| {' | '.join(cells)} |")
        sys.stdout.flush()
        wrong += sum(abs(q.error) > LIMIT for q in quantities)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
