"""Compare predicted with measured step times of hosts behind links of a known rate and latency; run by hand.

    .venv/bin/python -m tests.links                 five links: about half an hour on two cores
    .venv/bin/python -m tests.links --only=1gbit    the links of this rate between one worker on each of four hosts
    .venv/bin/python -m tests.links --only=pairs    two workers on each of three hosts

Each link is measured with jobs/scale.py and analysed as jobs/report.py does. The latency is that of plain MPI, because
plain MPI sends without negotiating first. Within a host, plain MPI uses shared memory, and only the rate is compared.
"From fewer hosts" is the prediction without the allreduces on the last host. The exit status is 1 if any relative error
is above LIMIT.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List, NamedTuple

from tqdm import tqdm

from lstm_dist.scaling.analysis import Findings, analyse
from lstm_dist.scaling.records import Rows, read_rows
from tests.support.launchers import ENVIRONMENT
from tests.support.network import Cable, Network, mbit
from tests.support.programs import ROOT, run

RATES, LATENCIES = ("100mbit", "1gbit"), (0.1e-3, 2e-3)
LIMIT = 0.15
# Enough warm-up for TCP to reach the rate of a fast link with a high latency before the first counted epoch.
POINT = ("--mode=weak", "--repeat=1", "--streams=8", "--steps=30", "--epochs=3", "--time-every=3")
# Large enough for two to four workers to exchange only the rows of W_x that a batch touches.
MODEL = ("--", "--hidden-size=128")


class Layout(NamedTuple):
    """Hosts, the workers on each of them, and their cables."""

    hosts: int
    per_host: int
    cable: Cable


LAYOUTS = {rate: [Layout(4, 1, Cable(rate, latency)) for latency in LATENCIES] for rate in RATES}
LAYOUTS["pairs"] = [Layout(3, 2, Cable("100mbit", 2e-3, inside="400mbit"))]


class Quantity(NamedTuple):
    """A quantity with its true or measured value, and the value that was estimated or predicted."""

    name: str
    expected: float
    found: float

    @property
    def error(self) -> float:
        """Return the relative error of the value found."""
        return self.found / self.expected - 1


def measure(network: Network, out: Path, per_host: int, *network_flags: str) -> Rows:
    """Measure this network with jobs/scale.py and return the rows."""
    count = len(network.hosts) * per_host
    common = [f"--workers={','.join(map(str, range(1, count + 1)))}", f"--out={out}", "--controller=gloo"]
    common += ["-H", ",".join(f"{host.name}:{per_host}" for host in network.hosts), "--interface=eth0", *POINT]
    # Ranks of several hosts share this machine's two cores, so a waiting rank must not keep another from computing.
    variables = {**ENVIRONMENT, "OMPI_MCA_mpi_yield_when_idle": "1", "PYTHON": None}
    for what, flags in (("network", network_flags), ("training", ())):
        command = [sys.executable, str(ROOT / "jobs" / "scale.py"), what, *common, *flags, *MODEL]
        done = run(network.hosts[0].inside(*command), timeout=1800, env=variables)
        assert done.returncode == 0, done.stdout + done.stderr
    return read_rows(out, allow_mixed=False)


def judge(cable: Cable, rows: Rows) -> List[Quantity]:
    """Return the links as configured and as fitted, and the steps as measured and as predicted."""
    found = analyse(rows)
    links = {fit.path: fit.link for fit in found.link_fits}
    horovod, plain = links["horovod-gloo"], links["mpi"]
    assert horovod
    assert plain
    assert horovod.between
    assert plain.between
    within = []
    if horovod.within:  # two workers send to each other at the same time, over one loopback
        within = [Quantity("within a host, Mbit/s", mbit(cable.inside) / 2, 8e-6 / horovod.within.beta)]
    return [
        *within,
        Quantity("latency, ms", 1e3 * cable.latency, 1e3 * plain.between.alpha_short),
        Quantity("Mbit/s", cable.mbit, 8e-6 / horovod.between.beta),
        *steps(found, ""),
        *([steps(analyse(on_fewer_hosts(rows)), " from fewer hosts")[-1]] if within else []),
    ]


def steps(found: Findings, how: str) -> List[Quantity]:
    """Return the steps of several workers as measured and as predicted."""
    (weak,) = found.modes
    sent = [step.group.bytes for step in weak.steps]
    assert sent == sorted(set(sent)), f"every number of workers has more rows than fewer: {sent}"
    assert sent[-1] < found.rows.experiment.bytes, "not all parameters"
    return [
        Quantity(f"step of {step.predicted.workers}{how}, ms", 1e3 * step.measured, 1e3 * step.predicted.step)
        for step in weak.steps
        if step.predicted.workers > 1
    ]


def on_fewer_hosts(rows: Rows) -> Rows:
    """Return the rows without the allreduces on the largest number of hosts."""
    most = max(row.hosts for row in rows.allreduce_rows)
    return rows._replace(allreduce_rows=[row for row in rows.allreduce_rows if row.hosts < most])


def trials(only: str) -> Iterator[List[Quantity]]:
    """Measure all layouts of this name, or of every name if it is empty."""
    layouts = LAYOUTS[only] if only else list(itertools.chain(*LAYOUTS.values()))
    for layout in tqdm(layouts, desc="links", unit="link"):
        with tempfile.TemporaryDirectory(prefix="links") as place:
            network = Network(Path(place), layout.hosts, layout.cable)
            try:
                out, flags = Path(place) / "out", ("--largest=8", "--seconds=0.5")
                yield judge(layout.cable, measure(network, out, layout.per_host, *flags))
            finally:
                network.close()


def main() -> int:
    """Print a table with the true value, the value found and the relative error of every quantity."""
    parser = argparse.ArgumentParser(prog="python -m tests.links", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(LAYOUTS), default="", help="links of this rate, or pairs of workers")
    names, wrong = [], 0
    for quantities in trials(parser.parse_args().only):
        if names != [quantity.name for quantity in quantities]:
            names = [quantity.name for quantity in quantities]
            tqdm.write(f"\n| {' | '.join(names)} |\n" + "| --- " * len(names) + "|")
        cells = [f"{q.expected:.4g}: {q.found:.4g} ({q.error:+.0%})" for q in quantities]
        tqdm.write(f"| {' | '.join(cells)} |")
        sys.stdout.flush()
        wrong += sum(abs(q.error) > LIMIT for q in quantities)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
