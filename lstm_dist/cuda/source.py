"""Source text of the CUDA kernels, and the signatures of the kernels in it.

The files in kernels/ are CUDA C. They use only what both NVRTC and tests/support/cuda_on_host.h provide, so that the
text that a GPU runs is the text that the tests run on the host: no headers, no dynamic shared memory.
"""

import re
from pathlib import Path
from typing import Dict, NamedTuple, Sequence, Tuple

KERNELS = Path(__file__).parent / "kernels"

_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)')
_PARAMETER = re.compile(r"(const )?(float|int|unsigned short) (\*)?(\w+)")


class Parameter(NamedTuple):
    """One parameter of a kernel.

    Attributes:
        type: float, int or unsigned short (the bits of a float16).
        is_array: whether it points to an array.
        is_const: whether the array is only read.
    """

    name: str
    type: str
    is_array: bool
    is_const: bool


class Source(NamedTuple):
    """The text of some kernels, complete for a compiler, and the parameters of each kernel by name."""

    text: str
    kernels: Dict[str, Tuple[Parameter, ...]]


def read_source(files: Sequence[str], **constants: int) -> Source:
    """Read kernels from files in kernels/, without suffix, in this order, with constants that they leave open.

    Raises:
        ValueError: see `parse_source`.
    """
    defines = [f"#define {name} {value}" for name, value in constants.items()]
    parts = [f'#line 1 "{name}.cu"\n{(KERNELS / name).with_suffix(".cu").read_text("utf-8")}' for name in files]
    return parse_source("\n".join([*defines, *parts]))


def parse_source(text: str) -> Source:
    """Find the kernels of a text, and their parameters.

    Raises:
        ValueError: naming a parameter of a type that is not supported.
    """
    return Source(text, {name: _read_parameters(listed) for name, listed in _KERNEL.findall(text)})


def _read_parameters(listed: str) -> Tuple[Parameter, ...]:
    return tuple(_read_parameter(" ".join(text.split())) for text in listed.split(","))


def _read_parameter(text: str) -> Parameter:
    match = _PARAMETER.fullmatch(text)
    if not match:
        raise ValueError(f"kernel parameter {text!r}: not `[const] float|int|unsigned short [*]name`")
    const, kind, star, name = match.groups()
    return Parameter(name, kind, bool(star), bool(const))
