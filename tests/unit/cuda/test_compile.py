"""Every kernel, compiled for GPUs: by NVRTC as MXNet does it, and to machine code as the driver of a GPU does it."""

import re
from functools import lru_cache
from typing import Dict, Tuple

import pytest

from lstm_dist.cuda.launch_sizes import persistent
from lstm_dist.cuda.source import KERNELS, Source, parse_source, read_source
from lstm_dist.model.cuda_recurrence import files_of
from tests.support.nvrtc import Usage, assemble, compile_to_ptx, read_usage

pytestmark = pytest.mark.kernels

CAPABILITIES = [(5, 2), (7, 0), (8, 0), (9, 0)]
OLDEST = CAPABILITIES[0]
# Files that are compiled together, and the constants that they leave open.
SETS: Dict[str, Tuple[Tuple[str, ...], Dict[str, int]]] = {
    "arrays": (("arrays",), {}),
    **{f"loop-{H}": (files_of(is_persistent=False), {"HIDDEN": H}) for H in (100, 256)},
    **{f"persistent-{H}": (files_of(is_persistent=True), {"HIDDEN": H}) for H in (32, 256, 512, 1024)},
}
PERSISTENT = ("persistent_forward", "persistent_backward")
SHARED = 48 * 1024  # bytes of shared memory that a block may have without an attribute of the launch
REGISTERS = 65536  # of a multiprocessor, for all threads of its blocks
FEW_REGISTERS = 32  # of a thread; with these, a multiprocessor holds as many threads as it can


def source(name: str) -> Source:
    files, constants = SETS[name]
    return read_source(files, **constants)


@lru_cache(None)
def ptx(name: str, capability: Tuple[int, int]) -> str:
    return compile_to_ptx(source(name), capability)


@lru_cache(None)
def usage(name: str, ptx_capability: Tuple[int, int], capability: Tuple[int, int]) -> Dict[str, Usage]:
    return assemble(ptx(name, ptx_capability), capability)


def test_every_file_is_in_a_set():
    assert {name for files, _ in SETS.values() for name in files} == {path.stem for path in KERNELS.glob("*.cu")}


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("name", SETS)
def test_kernels_compile_for_each_gpu_without_spills(name: str, capability: Tuple[int, int]):
    """From PTX for the oldest GPUs, which is what a job uses on every GPU, and from that for the GPU itself."""
    for ptx_capability in {OLDEST, capability}:
        needed = usage(name, ptx_capability, capability)
        assert set(needed) == set(source(name).kernels)
        for kernel, needs in needed.items():
            assert needs.spill_stores == needs.spill_loads == needs.stack == 0, (kernel, needs)
            assert needs.shared <= SHARED, (kernel, needs)
            assert needs.registers <= (255 if kernel in PERSISTENT else FEW_REGISTERS), (kernel, needs)


@pytest.mark.parametrize("hidden_size", [256, 512, 1024])
@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_persistent_kernels_hold_their_weights_in_registers(hidden_size: int, capability: Tuple[int, int]):
    """A thread has H / 8 weights; with fewer registers, it would read them again at each step."""
    size = persistent(hidden_size, 32, 132)
    assert size is not None
    for kernel in PERSISTENT:
        registers = usage(f"persistent-{hidden_size}", OLDEST, capability)[kernel].registers
        assert hidden_size // 8 < registers <= REGISTERS // size.threads


@pytest.mark.parametrize("name", ["persistent-32", "persistent-256", "persistent-1024"])
def test_barrier_and_reads_of_other_blocks_numbers_pass_the_caches(name: str):
    """On the host nothing depends on these instructions: a GPU may otherwise read what its L1 cache has."""
    text = ptx(name, OLDEST)
    for kernel in PERSISTENT:
        body = text[text.index(f".entry {kernel}(") :].partition("\n}")[0]
        order = r"bar\.sync.*?membar\.gl;.*?atom\.global\.add\.u32.*?ld\.global\.cv\.u32.*?membar\.gl;"
        assert len(re.findall(order, body, re.DOTALL)) == body.count("atom.global.add.u32") == 1
        assert "ld.global.cg.v4.f32" in body
        assert "ld.global.v4" not in body
        assert "ld.global.nc" not in body


def test_an_error_is_reported_with_its_line():
    wrong = parse_source('#line 7 "wrong.cu"\nextern "C" __global__ void f(int *x) { y = 1; }\n')
    with pytest.raises(ValueError, match=r'wrong.cu\(7\): error: identifier "y" is undefined'):
        compile_to_ptx(wrong, (7, 0))


def test_a_refusal_of_ptxas_is_reported():
    too_much = parse_source("""
    extern "C" __global__ void f(float *x) {
        __shared__ float s[13000];
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = s[threadIdx.x * 7];
    }
    """)
    with pytest.raises(ValueError, match="uses too much shared data"):
        assemble(compile_to_ptx(too_much, (7, 0)), (7, 0))


def test_spills_are_seen():
    kernels = parse_source("""
    extern "C" __global__ void __launch_bounds__(1024) spills(float *x, int n) {
        float kept[100];
    #pragma unroll
        for (int i = 0; i < 100; ++i) kept[i] = x[i * n];
        __syncthreads();
    #pragma unroll
        for (int i = 0; i < 100; ++i) x[i] = kept[i] * kept[i * 7 % 100];
    }
    extern "C" __global__ void indexes(float *x, int n) {
        __shared__ float shared[100];
        float kept[300];
        for (int i = 0; i < 300; ++i) kept[i] = x[i * n];
        shared[threadIdx.x] = kept[n];
        __syncthreads();
        for (int i = 0; i < 300; ++i) x[i] = kept[i] * kept[i * 7 % 300] + shared[i % 100];
    }
    """)
    needed = assemble(compile_to_ptx(kernels, (7, 0)), (7, 0))
    assert needed["spills"].registers == 64
    assert needed["spills"].spill_stores > 100
    assert needed["spills"].spill_loads > 100
    assert needed["indexes"].stack == 1200
    assert needed["indexes"].spill_stores == 0
    assert needed["indexes"].shared == 400


def test_the_report_of_ptxas_is_read():
    report = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas info    : Function properties for two
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 80 registers, 41472 bytes smem, 424 bytes cmem[0]
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, 364 bytes cmem[0]
"""
    assert read_usage(report) == {"two": Usage(80, 16, 8, 4, 41472), "one": Usage(8, 0, 0, 0, 0)}
