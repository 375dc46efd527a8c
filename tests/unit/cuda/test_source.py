"""Signatures of kernels, read from their source."""

import re

import pytest

from lstm_dist.cuda.source import KERNELS, Parameter, parse_source, read_source

FILES = sorted(path.stem for path in KERNELS.glob("*.cu"))


def parameter(text: str) -> Parameter:
    ((found,),) = parse_source(f'extern "C" __global__ void f({text}) {{}}').kernels.values()
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float x", Parameter("x", "float", False, False)),
        ("int n", Parameter("n", "int", False, False)),
        ("float *x", Parameter("x", "float", True, False)),
        ("const float *x", Parameter("x", "float", True, True)),
        ("const int *rows", Parameter("rows", "int", True, True)),
        ("unsigned short *half", Parameter("half", "unsigned short", True, False)),
        ("const  unsigned\n  short *half", Parameter("half", "unsigned short", True, True)),
    ],
)
def test_parameters(text: str, expected: Parameter):
    assert parameter(text) == expected


@pytest.mark.parametrize(
    "text",
    ["double x", "float x[3]", "float **x", "unsigned n", "float* x", "float * x", "volatile int *x", "float &x", ""],
)
def test_other_parameters_are_refused(text: str):
    with pytest.raises(ValueError, match=r"^kernel parameter '" + re.escape(text) + "': not "):
        parameter(text)


def test_kernels_of_a_text():
    source = parse_source("""
// extern "C" functions that are no kernels
__device__ float half(float x) { return x / 2; }
extern "C" __global__ void first(const float *x, float *y, int n) {}
extern "C" __global__ void __launch_bounds__(32 * 8)
    second(float a,
           unsigned short *bits) {}
extern "C" __global__ void __launch_bounds__(THREADS, 1) third(int *x) {}
""")
    assert {name: [p.name for p in parameters] for name, parameters in source.kernels.items()} == {
        "first": ["x", "y", "n"],
        "second": ["a", "bits"],
        "third": ["x"],
    }


@pytest.mark.parametrize("file", FILES)
def test_every_kernel_of_a_file_is_found(file: str):
    text = (KERNELS / file).with_suffix(".cu").read_text("utf-8")
    kernels = read_source([file]).kernels
    assert len(kernels) == text.count("__global__")
    for name, parameters in kernels.items():
        assert f"{name}(" in text
        assert all(p.is_array or not p.is_const for p in parameters), name


def test_files_are_joined_in_order_after_the_constants():
    text = read_source(["cell", "loop"], HIDDEN=256).text
    places = [text.index(part) for part in ("#define HIDDEN 256", '#line 1 "cell.cu"', "sigmoid", '#line 1 "loop.cu"')]
    assert places == sorted(places)
    assert text.startswith("#define HIDDEN 256\n")
