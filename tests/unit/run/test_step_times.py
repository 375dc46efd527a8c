"""What a log line says about timed steps, for steps with known times."""

from typing import Any, Dict, List

from lstm_dist.run.step_times import StepShares


def row(step: int, rank: int, wait: float, wire: float = 0.1, host: str = "node1") -> Dict[str, Any]:
    """Return a line of a step of one second."""
    rest = 1.0 - wait - wire
    times = {"data": 0.1 * rest, "compute": 0.7 * rest, "wait": wait, "wire": wire, "update": 0.2 * rest}
    return {"rank": rank, "host": host, "step": step, "bytes": 8, "started": 1e9 + step, **times}


def described(*parts: List[Dict[str, Any]]) -> str:
    shares = StepShares()
    for rows in parts:
        shares.add(rows)
    return shares.describe()


def test_slowest_worker_waits_least_in_most_steps():
    """Of five steps, worker 3 on the second host is last in three; over all, waits are 6 of 20 seconds."""
    waits = {1: [0.4, 0.4, 0.4, 0.0], 2: [0.4, 0.4, 0.4, 0.0], 3: [0.4, 0.4, 0.4, 0.0]}
    waits.update({4: [0.0, 0.4, 0.4, 0.4], 5: [0.4, 0.0, 0.4, 0.4]})
    rows = [
        row(step, rank, wait, host=f"node{1 + rank // 2}")
        for rank in range(4)
        for step, waits_of_step in waits.items()
        for wait in [waits_of_step[rank]]
    ]
    expected = "slowest: worker 3 on node2 (60 % of 5 timed steps); wait 30 %, communication 10 %"
    assert described(rows) == expected
    assert described([r for r in rows if r["step"] < 3], [r for r in rows if r["step"] >= 3]) == expected


def test_host_is_named_only_if_there_are_several():
    rows = [row(25, 0, 0.02, 0.34), row(25, 1, 0.30, 0.34)]
    assert described(rows) == "slowest: worker 0 (100 % of 1 timed step); wait 16 %, communication 34 %"


def test_nothing_is_said_about_one_worker_or_no_step():
    assert described([row(25, 0, 0.0, 0.0), row(50, 0, 0.0, 0.0)]) == ""
    assert described() == described([]) == ""
