"""The line that says where a run resumes, and whether its result will be that of an uninterrupted run."""

import pytest

from lstm_dist.train.callbacks import Progress
from lstm_dist.train.resume import PreviousRun

HERE = {"workers": 2, "controller": "mpi", "threads": 1, "kernels": "Haswell with AVX-512"}


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (HERE, ""),
        ({**HERE, "workers": 3}, "workers 3 -> 2"),
        ({**HERE, "workers": 1, "controller": "none"}, "workers 1 -> 2"),
        ({**HERE, "threads": 2, "kernels": "Nehalem"}, "threads 2 -> 1, kernels Nehalem -> Haswell with AVX-512"),
        ({k: value for k, value in HERE.items() if k != "kernels"}, "kernels unknown -> Haswell with AVX-512"),
    ],
)
def test_changes_that_affect_rounding_are_named(before, changes):
    line = PreviousRun(Progress(step=7, epoch=2), before, [], None).describe(HERE, epochs=9)
    end = f"; {changes}: the trajectory is the same up to floating-point rounding" if changes else ""
    assert line == f"resumed after step 7, in epoch 3{end}"


def test_finished_run_asks_for_more_epochs():
    line = PreviousRun(Progress(step=7, epoch=2), HERE, [], None).describe(HERE, epochs=2)
    assert line == "all 2 epochs are done: train longer with more --epochs"


def test_kernels_of_the_cpu_do_not_matter_on_a_gpu():
    here = {key: value for key, value in HERE.items() if key != "kernels"}
    line = PreviousRun(Progress(step=7, epoch=2), HERE, [], None).describe(here, epochs=9)
    assert line == "resumed after step 7, in epoch 3"


SOFTWARE = {"code": "0123456789abcdef", "versions": {"mxnet": "1.9.1", "numpy": "1.23.5"}}


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (SOFTWARE, ""),
        ({**SOFTWARE, "code": "fedcba9876543210"}, "code fedcba987654 -> 0123456789ab"),
        ({"versions": SOFTWARE["versions"]}, "code unknown -> 0123456789ab"),
        ({}, "code unknown -> 0123456789ab, mxnet none -> 1.9.1, numpy none -> 1.23.5"),
        ({**SOFTWARE, "versions": {"mxnet": "1.9.0", "numpy": "1.23.5"}}, "mxnet 1.9.0 -> 1.9.1"),
    ],
)
def test_other_software_is_named_in_one_line(before, changes):
    previous = PreviousRun(Progress(step=7, epoch=2), {**HERE, **before}, ["a warning"], None)
    first, *said, last = previous.lines(HERE, SOFTWARE, epochs=9)
    assert (first, last) == ("a warning", "resumed after step 7, in epoch 3")
    assert len(said) == bool(changes)
    assert all(f"({changes})" in line and "\n" not in line for line in said)
