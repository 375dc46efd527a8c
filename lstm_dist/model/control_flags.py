"""Control flags: numbers before the gradients, by which the workers agree on actions without another collective."""

from typing import NamedTuple


class ControlFlags(NamedTuple):
    """Actions after a step: those that a worker requests or, after averaging, those that any worker requested.

    Attributes:
        stop: end training after a checkpoint.
        checkpoint: write a checkpoint.
    """

    stop: bool = False
    checkpoint: bool = False


FLAGS = len(ControlFlags._fields)
NO_REQUEST = ControlFlags()
