"""Compiled kernels on one device, and their launch."""

from abc import ABC, abstractmethod
from typing import Union

import mxnet as mx

from lstm_dist.cuda.launch_sizes import LaunchSize
from lstm_dist.cuda.source import Parameter, Source

# PTX for the oldest GPUs: the driver translates it for any later one, also for those that this NVRTC does not know.
_OPTIONS = ("--gpu-architecture=compute_52",)
_RTC_TYPES = {"float": "float", "int": "int", "unsigned short": "__half"}


class Module(ABC):
    """The compiled kernels of one source, for arrays on one device.

    Attributes:
        ctx: the device.
    """

    def __init__(self, source: Source, ctx: mx.Context) -> None:
        self.ctx = ctx
        self.kernels = source.kernels

    @abstractmethod
    def launch(self, kernel: str, size: LaunchSize, *arguments: Union[mx.nd.NDArray, int, float]) -> None:
        """Launch a kernel, as an asynchronous operation that MXNet orders with others by the arrays.

        An array must not be given twice, not even as two views of one, unless all of these parameters are const: the
        operation would wait for itself.
        """


class RtcModule(Module):
    """Kernels compiled by NVRTC through MXNet, for a GPU."""

    def __init__(self, source: Source, ctx: mx.Context) -> None:
        super().__init__(source, ctx)
        module = mx.rtc.CudaModule(source.text, options=_OPTIONS)
        self._launchers = {
            name: module.get_kernel(name, ", ".join(map(_signature, parameters)))
            for name, parameters in source.kernels.items()
        }

    def launch(self, kernel: str, size: LaunchSize, *arguments: Union[mx.nd.NDArray, int, float]) -> None:
        """See `Module`."""
        self._launchers[kernel].launch(arguments, self.ctx, (*size.blocks, 1), (size.threads, 1, 1))


def _signature(parameter: Parameter) -> str:
    const, star = "const " if parameter.is_const else "", " *" if parameter.is_array else " "
    return f"{const}{_RTC_TYPES[parameter.type]}{star}{parameter.name}"
