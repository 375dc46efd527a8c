"""Names and shapes of the parameters, their memory requirement and their initial values."""

import math

import numpy as np
import pytest

from lstm_dist.model.parameters import (
    initial_parameters,
    layers_of,
    memory_needed,
    number_of_parameters,
    parameter_shapes,
)
from tests.support.cuda_model import cuda_model

V, H = 7, 5


def test_names_and_shapes_are_those_of_the_chapter():
    assert dict(parameter_shapes(1465, 256)) == {
        "W_xi": (1465, 256), "W_hi": (256, 256), "b_i": (256,),
        "W_xf": (1465, 256), "W_hf": (256, 256), "b_f": (256,),
        "W_xo": (1465, 256), "W_ho": (256, 256), "b_o": (256,),
        "W_xc": (1465, 256), "W_hc": (256, 256), "b_c": (256,),
        "W_hy": (256, 1465), "b_y": (1465,),
    }  # fmt: skip
    assert len(parameter_shapes(V, H)) == 14


def test_upper_layers_follow_the_chapters_parameters():
    one, three = parameter_shapes(V, H), parameter_shapes(V, H, layers=3)
    assert [*three][:14] == [*one]
    assert len(three) == 14 + 2 * 12
    assert {three[name] for name in ("W_xi_2", "W_hc_3", "W_xo_3")} == {(H, H)}
    assert three["b_f_3"] == (H,)
    first, deep = initial_parameters(V, H, 3), initial_parameters(V, H, 3, layers=3)
    assert all(np.array_equal(deep[name], value) for name, value in first.items())
    assert not np.array_equal(deep["W_xi_2"], deep["W_xi_3"])
    assert layers_of(deep) == 3
    assert layers_of([*first, "W_hidden", "W_hiss_2"]) == 1
    wide = initial_parameters(9, 64, 0, layers=2)
    assert [wide[name].std() for name in ("W_xo_2", "W_hc_2")] == pytest.approx([1 / 8, 1 / 8], rel=0.05)
    assert not wide["b_f_2"].any()
    assert number_of_parameters(V, H, 3) == number_of_parameters(V, H) + 2 * (8 * H * H + 4 * H)


def test_memory_needed_counts_parameters_twice_and_the_window():
    parameters = sum(math.prod(shape) for shape in parameter_shapes(V, H).values())
    assert number_of_parameters(V, H) == parameters
    assert memory_needed(V, H, 1, 0, 35) == 4 * 2 * parameters
    assert memory_needed(V, H, 1, 3, 2) - memory_needed(V, H, 1, 0, 2) == 4 * 6 * (14 * H + 2 * V)
    assert memory_needed(V, H, 2, 3, 2) - memory_needed(V, H, 2, 0, 2) == 4 * 6 * (28 * H + 2 * V)


def test_memory_needed_on_a_gpu_is_that_of_the_arrays_of_its_model():
    """All but h and c before the window, which are (B, H) each."""
    model, (B, T) = cuda_model(V, 32, 2), (3, 4)
    window = model._window(B, T)
    arrays = [array for layer in window.layers for array in layer] + [window.logits, window.losses, window.dh]
    needed = memory_needed(V, 32, 2, B, T, on_gpu=True) - memory_needed(V, 32, 2, 0, T, on_gpu=True)
    assert 4 * sum(array.size for array in arrays) - needed == 4 * (2 * 2 * B * 32 + B * T)


def test_initial_parameters_depend_on_the_seed():
    first, again, other = (initial_parameters(V, H, seed) for seed in (3, 3, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert value.dtype == np.float32
        if name.startswith("b"):
            assert not value.any()
        else:
            assert not np.array_equal(value, other[name])
    assert not np.array_equal(first["W_xi"], first["W_xf"])
    wide = initial_parameters(400, 50, 0)["W_xo"]
    assert abs(wide.mean()) < 3e-4
    assert wide.std() == pytest.approx(0.01, rel=0.02)
