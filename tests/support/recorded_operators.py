"""Records what MXNet computes on a device: the operators by name, at the border to its C library."""

import ctypes
from typing import Any, Set

import mxnet as mx
import pytest
from mxnet.base import _LIB

# Functions of the C library that compute on arrays. Copies from and to memory of Python, views and the creation of an
# array without values are other functions.
_INVOKE, _GRAPH = "MXImperativeInvokeEx", "MXInvokeCachedOpEx"


class RecordedOperators:
    """Names of the operators that have an array on the device as argument or result.

    Attributes:
        names: each once; a copy "between types" computes, one of equal types does not.
    """

    def __init__(self, device: mx.Context, patch: pytest.MonkeyPatch) -> None:
        """Begin to record; ends with the patch."""
        self.names: Set[str] = set()
        self._device = device.device_typeid, device.device_id
        invoke, graph = getattr(_LIB, _INVOKE), getattr(_LIB, _GRAPH)

        def record(creator: Any, n_in: Any, ins: Any, n_out: Any, outs: Any, *rest: Any) -> int:
            status: int = invoke(creator, n_in, ins, n_out, outs, *rest)
            results = outs._obj[: n_out._obj.value]
            arrays = [*ins[: n_in.value], *results]
            if any(self._is_on_device(handle) for handle in arrays):
                types = {_type(handle) for handle in arrays}
                self.names.add(f"{_name(creator)} between types" if len(types) > 1 else _name(creator))
            return status

        def record_graph(*arguments: Any) -> int:
            self.names.add("a graph")
            status: int = graph(*arguments)
            return status

        patch.setattr(_LIB, _INVOKE, record)
        patch.setattr(_LIB, _GRAPH, record_graph)

    def _is_on_device(self, handle: Any) -> bool:
        kind, number = ctypes.c_int(), ctypes.c_int()
        mx.base.check_call(_LIB.MXNDArrayGetContext(ctypes.c_void_p(handle), ctypes.byref(kind), ctypes.byref(number)))
        return (kind.value, number.value) == self._device


def _name(creator: Any) -> str:
    """Return the name of an operator."""
    name = ctypes.c_char_p()
    mx.base.check_call(_LIB.MXSymbolGetAtomicSymbolName(creator, ctypes.byref(name)))
    return (name.value or b"").decode()


def _type(handle: Any) -> int:
    """Return MXNet's number of the type of an array's elements."""
    number = ctypes.c_int()
    mx.base.check_call(_LIB.MXNDArrayGetDType(ctypes.c_void_p(handle), ctypes.byref(number)))
    return number.value
