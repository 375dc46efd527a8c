"""CUDA kernels compiled for the host, and run on arrays of MXNet in its memory (cuda_on_host.h, cuda_on_host.cc)."""

import ctypes
import hashlib
import os
import shlex
import subprocess
import tempfile
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar, Dict, List, Tuple, Union

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from lstm_dist.cuda.module import LaunchSize, Module
from lstm_dist.cuda.source import Parameter, Source

HEADER = Path(__file__).with_name("cuda_on_host.h")
SCHEDULER = Path(__file__).with_name("cuda_on_host.cc")
FLAGS = ("-std=c++17", "-O2", "-g0", "-fPIC", "-pthread", "-ffp-contract=off", "-fno-strict-aliasing",
         "-fno-gnu-unique", "-U_FORTIFY_SOURCE")  # fmt: skip
DTYPES = {"float": np.float32, "int": np.int32, "unsigned short": np.float16}
ORDERS = {"forward": 0, "reversed": 1}
SHUFFLED = 2


class _Index(ctypes.Structure):
    _fields_: ClassVar = [(axis, ctypes.c_uint) for axis in "xyz"]


class _Argument(ctypes.Structure):
    _fields_: ClassVar = [("array", ctypes.c_void_p), ("integer", ctypes.c_int), ("real", ctypes.c_float)]


class _Launch(ctypes.Structure):
    _fields_: ClassVar = [
        ("blocks", _Index), ("threads", _Index), ("order", ctypes.c_int), ("seed", ctypes.c_uint),
        ("limit", ctypes.c_double), ("memory_of", ctypes.c_void_p), ("release", ctypes.c_void_p),
        ("count", ctypes.c_int), ("arguments", ctypes.POINTER(_Argument)),
    ]  # fmt: skip


class _Context(ctypes.Structure):
    _fields_: ClassVar = [("dev_type", ctypes.c_int), ("dev_id", ctypes.c_int)]


class HostModule(Module):
    """Kernels compiled for the host, for arrays in its memory.

    A launch is an operation of MXNet's engine, as one on a GPU is: it waits for what its arrays wait for, and an error
    in it is raised as MXNetError where the result of a non-const array is read.
    """

    def __init__(
        self, source: Source, ctx: mx.Context, order: Union[str, int] = "forward", time_limit: float = 30
    ) -> None:
        """Compile the source.

        Args:
            order: of the threads of a block between two barriers, and of the blocks: "forward", "reversed", or the
                seed of random orders.
            time_limit: of a launch, in seconds.
        """
        super().__init__(source, ctx)
        self._library = ctypes.CDLL(str(_compile(source)))
        self._library.copy_launch.restype = ctypes.c_void_p
        self._order, self._seed = (ORDERS[order], 0) if isinstance(order, str) else (SHUFFLED, order)
        self._time_limit = time_limit

    def launch(self, kernel: str, size: LaunchSize, *arguments: Union[mx.nd.NDArray, int, float]) -> None:
        """See `Module`.

        Raises:
            TypeError: for an argument that does not fit to the kernel's parameter, or if their numbers differ.
            ValueError: for an array that is given twice, or is on another device, or a size that no GPU accepts.
        """
        (x, y), threads = size
        if not (0 < x < 2**31 and 0 < y < 2**16 and 0 < threads <= 1024):
            raise ValueError(f"{kernel}: {size} is not a size for GPUs")
        parameters = self.kernels[kernel]
        if len(arguments) != len(parameters):
            raise TypeError(f"{kernel}: {len(arguments)} arguments for {len(parameters)} parameters")
        for parameter, argument in zip(parameters, arguments):
            self._check(kernel, parameter, argument)
        arrays = [(p, a) for p, a in zip(parameters, arguments) if isinstance(a, mx.nd.NDArray)]
        _check_distinct(kernel, arrays)
        launch = _Launch(
            _Index(*size.blocks, 1), _Index(size.threads, 1, 1), self._order, self._seed, self._time_limit,
            ctypes.cast(_LIB.MXNDArrayGetData, ctypes.c_void_p), ctypes.cast(_LIB.MXNDArrayFree, ctypes.c_void_p),
            len(arguments), (_Argument * len(arguments))(*map(_pass, arguments)),
        )  # fmt: skip
        self._push(kernel, launch, [a for p, a in arrays if p.is_const], [a for p, a in arrays if not p.is_const])

    def _check(self, kernel: str, parameter: Parameter, argument: Union[mx.nd.NDArray, int, float]) -> None:
        where = f"{kernel}: {parameter.name}"
        if not parameter.is_array:
            if not isinstance(argument, Integral if parameter.type == "int" else Real):
                raise TypeError(f"{where}: {type(argument).__name__}, not {parameter.type}")
            return
        if not isinstance(argument, mx.nd.NDArray):
            raise TypeError(f"{where}: {type(argument).__name__}, not an array")
        if argument.dtype != DTYPES[parameter.type]:
            raise TypeError(f"{where}: an array of {np.dtype(argument.dtype)}, not {np.dtype(DTYPES[parameter.type])}")
        if argument.context != self.ctx:
            raise ValueError(f"{where}: an array on {argument.context}, not {self.ctx}")

    def _push(self, kernel: str, launch: _Launch, read: List[mx.nd.NDArray], written: List[mx.nd.NDArray]) -> None:
        check_call(
            _LIB.MXEnginePushSyncND(
                getattr(self._library, f"run_{kernel}"),
                ctypes.c_void_p(self._library.copy_launch(ctypes.byref(launch))),
                self._library.delete_launch,
                ctypes.byref(_Context(self.ctx.device_typeid, self.ctx.device_id)),
                _handles(read),
                len(read),
                _handles(written),
                len(written),
                None,
                0,
                kernel.encode(),
            )  # fmt: skip
        )


def _check_distinct(kernel: str, arrays: List[Tuple[Parameter, mx.nd.NDArray]]) -> None:
    """Check that no memory is given twice, unless it is only read."""
    owners: Dict[int, Parameter] = {}
    for parameter, array in arrays:
        other = owners.setdefault(base(array), parameter)
        if other is not parameter and not (parameter.is_const and other.is_const):
            raise ValueError(
                f"{kernel}: {other.name} and {parameter.name} are in one array: the launch would wait for itself"
            )


def base(array: mx.nd.NDArray) -> int:
    """Return a number that an array and its views have in common.

    It is the pointer with which an NDArray of MXNet 1.9.1 begins, and which its views share: that to the memory and the
    variable by which the engine orders operations.
    """
    return ctypes.cast(array.handle, ctypes.POINTER(ctypes.c_size_t))[0]


def _pass(argument: Union[mx.nd.NDArray, int, float]) -> _Argument:
    if not isinstance(argument, mx.nd.NDArray):
        return _Argument(None, int(argument), argument)
    copy = ctypes.c_void_p()  # keeps the memory until the launch is over
    check_call(_LIB.MXShallowCopyNDArray(argument.handle, ctypes.byref(copy)))
    return _Argument(copy, 0, 0)


def _handles(arrays: List[mx.nd.NDArray]) -> ctypes.Array:
    return (ctypes.c_void_p * len(arrays))(*(array.handle for array in arrays))


def _compile(source: Source) -> Path:
    """Return the library made of a source.

    Raises:
        ValueError: with the messages of the compiler, if it refuses.
    """
    text = "\n".join([f'#include "{HEADER.name}"', source.text, *map(_entry, source.kernels.items()), ""])
    kernels = _build(text, ".o", "-c", "-fsanitize=bounds")
    scheduler = _build(SCHEDULER.read_text("utf-8"), ".o", "-c")
    # Linked on its own, because the compiler would add a library for -fsanitize.
    return _build("", ".so", "-shared", "-Wl,-Bsymbolic", str(kernels), str(scheduler), "-ldl")


def _build(text: str, suffix: str, *flags: str) -> Path:
    """Return the file that the compiler makes of a text; it is kept for later calls of any process."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = [*compiler, *FLAGS, f"-I{HEADER.parent}", *"-x c++ - -x none".split(), *flags]
    key = hashlib.sha256("\0".join([*command, HEADER.read_text("utf-8"), text]).encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"lstm_dist-host-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{key}{suffix}"
    if not file.exists():
        new = folder / f"{key}.{os.getpid()}{suffix}"
        result = subprocess.run(
            [*command, "-o", str(new)], input=text, encoding="utf-8", capture_output=True, check=False
        )
        if result.returncode:
            raise ValueError(f"the kernels do not compile for the host:\n{result.stderr}")
        new.replace(file)
    return file


def _entry(kernel: Tuple[str, Tuple[Parameter, ...]]) -> str:
    """Return the function that MXNet's engine calls for a kernel."""
    name, parameters = kernel
    values = ", ".join(
        f"static_cast<{p.type} *>(a[{i}].array)" if p.is_array else f"a[{i}].{'integer' if p.type == 'int' else 'real'}"
        for i, p in enumerate(parameters)
    )
    return (
        f'extern "C" void run_{name}(void *, void *launch) {{\n'
        f'    cuda_on_host::run(launch, [](const cuda_on_host::Argument *a) {{ {name}({values}); }}, "{name}");\n}}'
    )
