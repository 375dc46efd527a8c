"""One World for the whole session: one of N ranks under `mpirun -np N`, a world of one under plain pytest."""

import os
import sys
from typing import Iterator

import pytest

from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    before = dict(os.environ)
    world = HorovodWorld.open()
    os.environ.clear()  # remove the variables of this world: other tests start programs by other launchers
    os.environ.update(before)
    yield world
    world.__exit__(None, None, None)


@pytest.hookimpl(trylast=True)
def pytest_runtest_makereport(item, call):
    # A rank that fails while the others wait in a collective would keep them waiting until the time limit.
    failed = call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception)
    world = item.funcargs.get("world") if failed and hasattr(item, "funcargs") else None
    if world is not None and world.size > 1:
        sys.stderr.write(f"rank {world.rank}: {item.nodeid}: {call.excinfo.exconly()}\n{call.excinfo.getrepr()}\n")
        world._abort(call.excinfo.value)
