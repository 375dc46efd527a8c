"""CUDA kernels compiled for GPUs where there is none: by NVRTC to PTX, and by ptxas to machine code."""

import ctypes
import re
import subprocess
import tempfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

from lstm_dist.cuda.source import Source


class Usage(NamedTuple):
    """What one kernel needs of a GPU.

    Attributes:
        registers: of each thread.
        stack: bytes of each thread that are not in registers, such as arrays with an index that is not constant.
        spill_stores, spill_loads: bytes of each thread that are moved for lack of registers.
        shared: bytes of shared memory of a block.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


def compile_to_ptx(source: Source, capability: Tuple[int, int]) -> str:
    """Compile kernels for a compute capability.

    Raises:
        ValueError: with NVRTC's messages, if they do not compile.
    """
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    text = source.text.encode()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None))
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture=compute_{_number(capability)}".encode())
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), options):
            raise ValueError(f"the kernels do not compile for {capability}:\n{_text(program, 'ProgramLog')}")
        return _text(program, "PTX")
    finally:
        _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))


def assemble(ptx: str, capability: Tuple[int, int]) -> Dict[str, Usage]:
    """Make machine code of PTX for a compute capability, and return what each kernel needs.

    Raises:
        ValueError: with the messages of ptxas, if it refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.ptx"
        file.write_text(ptx, "utf-8")
        command = [_ptxas(), "-v", f"-arch=sm_{_number(capability)}", "-o", f"{folder}/kernels.cubin", str(file)]
        result = subprocess.run(command, encoding="utf-8", capture_output=True, check=False)
    if result.returncode:
        raise ValueError(f"ptxas refuses the kernels for {capability}:\n{result.stdout}{result.stderr}")
    return read_usage(result.stdout + result.stderr)


def read_usage(report: str) -> Dict[str, Usage]:
    """Read what `ptxas -v` reports of each kernel."""
    kernels = re.split(r"Compiling entry function '(\w+)' for", report)[1:]
    return {name: _usage(text) for name, text in zip(kernels[::2], kernels[1::2])}


def _usage(text: str) -> Usage:
    def number(pattern: str) -> int:
        found = re.search(rf"(\d+) {pattern}", text)
        return int(found.group(1)) if found else 0

    return Usage(
        number("registers"),
        number("bytes stack frame"),
        number("bytes spill stores"),
        number("bytes spill loads"),
        number("bytes smem"),
    )


def _number(capability: Tuple[int, int]) -> str:
    return "".join(map(str, capability))


@lru_cache(None)
def _nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(_file("nvidia-cuda-nvrtc-cu11", "nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2"))


def _ptxas() -> str:
    return _file("nvidia-cuda-nvcc-cu11", "nvidia/cuda_nvcc/bin/ptxas")


def _file(package: str, path: str) -> str:
    return str(metadata.distribution(package).locate_file(path))


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC: error {status}")


def _text(program: ctypes.c_void_p, kind: str) -> str:
    """Return the log or the PTX of a program."""
    size = ctypes.c_size_t()
    _check(getattr(_nvrtc(), f"nvrtcGet{kind}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(_nvrtc(), f"nvrtcGet{kind}")(program, text))
    return text.value.decode()
