"""Pinning of workers to cores, their number of threads, and the release of cores under contention."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, FrozenSet, List, Tuple

import pytest

from lstm_dist.cluster import cpu_affinity
from lstm_dist.cluster.core_monitor import CoreMonitor, Usage, read_usage
from lstm_dist.cluster.cpu_affinity import cores_text, describe_pinning, describe_release, plan
from lstm_dist.errors import UserError

HOROVODRUN = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPIRUN_0 = {**MPIRUN, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
SRUN = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch):
    """Return a function that simulates a node: the launcher may use `allowed` cores and this worker `own` of them.

    Cores n and n + `cores` are hardware threads of one physical core.
    """

    def make(allowed: int, own: int, cores: int = 4) -> None:
        masks = {0: set(range(own)), os.getppid(): set(range(allowed))}
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: masks[pid])
        monkeypatch.setattr(cpu_affinity, "_topology", lambda cpu: (0, cpu % cores, cpu))

    return make


@pytest.mark.parametrize(
    ("allowed", "own", "local_size", "threads"),
    [
        (8, 8, 1, 8),
        (8, 8, 3, 2),  # 3 workers share 8 cores
        (8, 2, 3, 2),
        (8, 1, 2, 1),  # bound to one core by the launcher
        (2, 2, 4, 1),  # more workers than cores
    ],
)
def test_number_of_threads_is_the_share_of_the_cores(node, allowed: int, own: int, local_size: int, threads: int):
    node(allowed, own)
    assert plan({**HOROVODRUN, "HOROVOD_LOCAL_SIZE": str(local_size)}).threads == threads


@pytest.mark.parametrize(
    ("given", "threads"),
    [("5", 5), ("4,2", 4), (" 3 , 1 ", 3), ("auto", 8), ("", 8), ("many", 8), ("-1", 8), ("0", 8), ("4.5", 8)],
)
def test_valid_omp_num_threads_takes_precedence(node, given: str, threads: int):
    """An invalid value is replaced, because OpenMP ignores it and would use every core in every worker."""
    node(8, 8)
    assert plan({"OMP_NUM_THREADS": given}).threads == threads


@pytest.mark.parametrize("given", ["1025", pytest.param("9" * 5000, id="5000 digits"), "70000,2"])
def test_impossible_number_of_threads_is_refused(node, given: str):
    node(8, 8)
    with pytest.raises(UserError, match=r"^OMP_NUM_THREADS=\d+(,2)?: should be at most 1024 threads; unset it"):
        plan({"OMP_NUM_THREADS": given})


@pytest.mark.parametrize(
    ("allowed", "local_size", "more", "share"),
    [
        (8, 2, {}, {2, 6, 3, 7}),  # the second half of four physical cores with two hardware threads each
        (8, 3, {}, {1, 5}),
        (2, 2, {"OMP_NUM_THREADS": "1"}, {1}),
        (2, 2, {"LSTM_DIST_PINNING": "always"}, {1}),
    ],
)
def test_worker_is_pinned_to_its_share(node, allowed: int, local_size: int, more: Dict[str, str], share: set):
    node(allowed, allowed)
    affinity = plan({**HOROVODRUN, "HOROVOD_LOCAL_SIZE": str(local_size), **more})
    assert affinity.share == share
    assert affinity.allowed == set(range(allowed))
    assert affinity.always == ("LSTM_DIST_PINNING" in more)


@pytest.mark.parametrize(
    ("allowed", "own", "environ", "reason"),
    [
        (8, 8, {"HOROVOD_LOCAL_SIZE": "1", "HOROVOD_LOCAL_RANK": "0"}, "the only worker of its node"),
        (8, 2, {}, "the launcher has bound it to cores 0-1"),
        (2, 2, {"HOROVOD_LOCAL_SIZE": "4"}, "4 workers on cores 0-1"),
        (8, 8, {"OMP_NUM_THREADS": "8"}, "OMP_NUM_THREADS=8 is more than its share of 4 of 8 cores"),
        (8, 8, {"OMP_PROC_BIND": "false"}, "OMP_PROC_BIND is set"),
        (8, 8, {"LSTM_DIST_PINNING": "never"}, "LSTM_DIST_PINNING=never"),
        (8, 8, {"HOROVOD_LOCAL_RANK": "2"}, "the launcher does not say how many workers this node has"),
    ],
)
def test_unpinned_worker_reports_the_reason(node, allowed: int, own: int, environ: Dict[str, str], reason: str):
    node(allowed, own)
    affinity = plan({**HOROVODRUN, **environ})
    assert not affinity.share
    assert affinity.describe() == f"not pinned: {reason}"


def test_shares_of_a_nodes_workers_cover_all_cores(node):
    node(8, 8)
    ranks = [{**HOROVODRUN, "HOROVOD_LOCAL_SIZE": "4", "HOROVOD_LOCAL_RANK": str(rank)} for rank in range(4)]
    shares = [plan(environ).share for environ in ranks]
    assert [len(share) for share in shares] == [2] * 4
    assert frozenset().union(*shares) == set(range(8))


def test_mpirun_binding_may_be_released_slurm_binding_is_kept(node):
    """mpirun binds every job of two ranks to the same first two cores; Slurm knows which cores other jobs use."""
    node(8, 1, cores=8)
    by_mpirun = plan(MPIRUN_0)
    assert (by_mpirun.share, by_mpirun.allowed) == ({0}, set(range(8)))
    assert by_mpirun.describe() == "pinned to core 0 by the launcher"
    assert plan({**MPIRUN_0, "LSTM_DIST_PINNING": "always"}).always
    assert not plan({**MPIRUN_0, "LSTM_DIST_PINNING": "never"}).share
    assert plan(SRUN).describe() == "not pinned: the launcher has bound it to core 0"


def test_binding_chosen_by_the_user_is_kept(node):
    """A binding other than the rank's default core, as set by mpirun --cpu-set, is kept."""
    node(8, 2)
    assert plan(MPIRUN).describe() == "not pinned: the launcher has bound it to cores 0-1"


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"])
def test_openmp_binding_variables_disable_pinning(node, name: str):
    for allowed, own in ((8, 8), (8, 1)):
        node(allowed, own, cores=8)
        assert plan({**MPIRUN_0, name: "x"}).describe() == f"not pinned: {name} is set"


def test_mpirun_binding_of_several_ranks_to_a_socket_is_not_a_share(node):
    node(8, 6)
    assert not plan(MPIRUN).share


def test_unknown_pinning_mode_is_refused():
    with pytest.raises(UserError, match=r"^LSTM_DIST_PINNING=yes: should be auto, always or never$"):
        plan({"LSTM_DIST_PINNING": "yes"})


@pytest.mark.parametrize(
    ("workers", "line"),
    [
        (["pinned to core 0", "pinned to core 1"], "cores: rank 0 is pinned to core 0, rank 1 is pinned to core 1"),
        (["not pinned: x"] * 3, "cores: each worker is not pinned: x"),
        (
            [f"pinned to core {core}" for core in range(4)] + ["not pinned: x"],
            "cores: 4 of 5 workers are pinned to their share of their node's cores, see run.json",
        ),
    ],
)
def test_the_log_has_one_line_for_all_workers(workers: List[str], line: str):
    assert describe_pinning(workers) == line


@pytest.mark.parametrize(
    ("cores", "text"), [([3], "core 3"), ([0, 1, 2, 3, 8], "cores 0-3, 8"), ([5, 7], "cores 5, 7")]
)
def test_cores_are_written_as_ranges(cores: List[int], text: str):
    assert cores_text(frozenset(cores)) == text


class Machine:
    """A simulated clock, and a worker pinned to the first `share` of `share` + 1 cores; `use` simulates their load."""

    def __init__(self, share: int = 1) -> None:
        self.now = self.busy = self.own = 0.0
        self.masks: List[FrozenSet[int]] = []
        self.reports: List[str] = []
        cores = frozenset(range(share))
        self.monitor = CoreMonitor(
            cores,
            frozenset(range(share + 1)),
            self.masks.append,
            lambda foreign: self.reports.append(describe_release(cores, foreign)),
            self.read,
        )

    def read(self, cores: FrozenSet[int]) -> Usage:
        assert min(cores) == 0
        return Usage(self.now, self.busy, self.own)

    def use(self, *foreign: float, seconds: float = 0.5, own: float = 0.4) -> None:
        """Simulate one measurement for each value, the number of the worker's cores that other processes use."""
        for share in foreign:
            self.now += seconds
            self.own += own * seconds
            self.busy += (own + share) * seconds
            self.monitor.step()


def test_cores_are_released_under_contention():
    machine = Machine()
    machine.use(0.0, 0.1, 0.6, 0.1)
    assert machine.masks == []  # a single measurement may be an outlier
    machine.use(0.6, 0.6)
    assert machine.masks == [{0, 1}]
    (line,) = machine.reports
    assert " is no longer pinned to core 0, because other processes use 0.6 of 1; " in line


def test_own_cpu_time_is_not_contention():
    machine = Machine()
    machine.use(*[0.05] * 20, own=0.95)
    assert machine.masks == []


def test_pause_before_pinning_again_doubles():
    machine = Machine()
    machine.use(0.6, 0.6)
    pinned = []
    for _ in range(6):
        while machine.masks[-1] != {0}:
            machine.use(0.0)
        pinned.append(machine.now)
        machine.use(*[0.6] * 6)  # the first two seconds are a grace period and are not counted
        assert machine.masks[-1] == {0, 1}
    assert pinned == [30, 60, 120, 240, 480, 600], "multiples of the pause, common to all workers of a host"
    assert len(machine.reports) == 1, "a run reports only its first release"


def test_workers_of_one_job_do_not_keep_each_other_released():
    """When the process that caused their release has ended, both are pinned again in one step and stay pinned."""
    machines = [Machine(), Machine()]
    machines[1].use(0.0, seconds=0.3)  # offset its clock from the other's
    for machine in machines:
        machine.use(0.6, 0.6)
    for _ in range(400):
        for machine in machines:
            others_roam = any(other.masks[-1] == {0, 1} for other in machines if other is not machine)
            machine.use(0.5 if others_roam else 0.0)
    assert [machine.masks for machine in machines] == [[{0, 1}, {0}]] * 2


def test_contention_threshold_grows_with_the_share():
    """With 64 cores, contention starts at a tenth of them, because the measurement error grows with the share."""
    machine = Machine(share=64)
    machine.use(*[6.0] * 20)
    assert machine.masks == []
    machine.use(7.0, 7.0)
    assert len(machine.masks) == 1


def test_worker_stays_pinned_after_contention_has_ended():
    machine = Machine()
    machine.use(0.6, 0.6)
    machine.use(*[0.0] * 200)
    assert machine.masks == [{0, 1}, {0}]


def test_suspended_worker_keeps_its_cores():
    """A worker suspended by SIGSTOP is not released; a benchmark alternates its processes in this way."""
    machine = Machine()
    machine.use(*[0.9] * 5, seconds=5, own=0.0)
    assert machine.masks == []


def test_contention_within_the_grace_period_is_ignored():
    """When all ranks are pinned again, one of them may still run on this core for a moment."""
    machine = Machine()
    machine.use(0.6, 0.6)
    while machine.masks[-1] != {0}:
        machine.use(0.0)
    machine.use(*[0.6] * 3)
    assert machine.masks == [{0, 1}, {0}]
    machine.use(*[0.0] * 20)
    assert machine.masks == [{0, 1}, {0}]


def test_usage_counts_user_nice_and_system_time_of_given_cores(tmp_path: Path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9\ncpu0 100 20 3 4000 50 6\ncpu1 1 1 1 1\ncpu10 7 7 7 7\nctxt 5\n")
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert read_usage(frozenset({0}), stat).cores == pytest.approx(123 * tick)
    assert read_usage(frozenset({1, 10}), stat).cores == pytest.approx(24 * tick)


def test_usage_measures_cpu_time_of_core_and_process():
    """A busy loop pinned to one core is counted in the CPU time of the core and in that of its process."""
    code = """
import os, time
from lstm_dist.cluster.core_monitor import read_usage
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
before = read_usage(frozenset({core}))
while time.process_time() < 0.6: pass
after = read_usage(frozenset({core}))
assert after.own - before.own > 0.3
assert after.cores - before.cores > 0.2, (before, after)
assert after.wall - before.wall >= after.own - before.own - 0.05
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[3])


def test_affinity_is_set_for_all_threads():
    """Threads that already run are moved too: Linux keeps an affinity for each thread, not for the process."""
    code = """
import os, threading, time
from lstm_dist.cluster.cpu_affinity import set_affinity
cores = os.sched_getaffinity(0)
threads = [threading.Thread(target=time.sleep, args=(5,), daemon=True) for _ in range(3)]
for thread in threads: thread.start()
set_affinity(frozenset({min(cores)}))
masks = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
assert masks == [{min(cores)}] * 4, masks
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize(("mode", "started"), [("auto", [{0}]), ("always", [])])
def test_pinned_cores_are_monitored_unless_pinning_is_always(
    monkeypatch: pytest.MonkeyPatch, node, mode: str, started: List[FrozenSet[int]]
):
    node(2, 2)
    found: List[FrozenSet[int]] = []
    monkeypatch.setattr(os, "environ", {**MPIRUN_0, "OMP_NUM_THREADS": "1", "LSTM_DIST_PINNING": mode})
    monkeypatch.setattr(cpu_affinity, "set_affinity", lambda _: None)
    monkeypatch.setattr(cpu_affinity, "request_short_slices", lambda: None)
    monkeypatch.setattr(CoreMonitor, "start", lambda monitor: found.append(monitor._share))
    assert cpu_affinity.pin_to_cores().share == {0}
    assert found == started


@pytest.mark.parametrize(("given", "set_to"), [("x", "8"), ("4,2", "4"), ("0", "8")])
def test_unpinned_worker_starts_no_monitor_thread(monkeypatch: pytest.MonkeyPatch, node, given: str, set_to: str):
    """What it sets for MXNet is one number, also where OpenMP would accept a list."""
    node(8, 8)
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": given})
    before: Tuple[threading.Thread, ...] = tuple(threading.enumerate())
    assert cpu_affinity.pin_to_cores().threads == int(set_to)
    assert os.environ["OMP_NUM_THREADS"] == set_to
    assert tuple(threading.enumerate()) == before
