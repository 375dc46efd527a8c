"""Provide one Slurm cluster for all tests of a session, and the reference runs."""

from pathlib import Path
from typing import Iterator

import pytest

from tests.support.launchers import ENVIRONMENT, mpirun
from tests.support.network import Network, require_tools
from tests.support.programs import TINY, TRAIN, run
from tests.support.slurm_cluster import Cluster, Reference


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_tools("munged", "slurmctld", "slurmd", "sbatch", "srun")
    folder = tmp_path_factory.mktemp("cluster")
    for part in ("network", "slurm"):
        (folder / part).mkdir()
    network = Network(folder / "network", 4)
    try:
        cluster = Cluster(network, folder / "slurm")
        yield cluster
        cluster.close()
    finally:
        network.close()


@pytest.fixture(scope="session")
def reference(song_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    # A small learning rate: with the usual one this model is chaotic, and the order of summation soon changes it.
    small = ("--epochs=28", "--learning-rate=0.01", "--log-every=7", "--sample-length=20")
    flags = (*TINY, f"--corpus={song_file}", *small)
    for name, launcher in (("alone", []), ("pair", mpirun(2))):
        done = run([*launcher, *TRAIN, *flags, f"--run-dir={folder / name}"], env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    return Reference(flags, folder / "alone", folder / "pair")
