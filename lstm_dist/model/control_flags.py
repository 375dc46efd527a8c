"""Control flags: numbers before the gradients, by which the workers agree on actions without another collective."""

from typing import NamedTuple


class ControlFlags(NamedTuple):
    """Actions after a step: those that a worker requests or, after averaging, those that any worker requested.

    Attributes:
        stop: end training after a checkpoint.
        checkpoint: write a checkpoint.
        report: report the steps since the last report.
        evaluate: evaluate the model, and report.
    """

    stop: bool = False
    checkpoint: bool = False
    report: bool = False
    evaluate: bool = False

    @property
    def need_checkpoint(self) -> bool:
        """Return whether a checkpoint has to be written, to stop or to go on."""
        return self.stop or self.checkpoint


FLAGS = len(ControlFlags._fields)
NO_REQUEST = ControlFlags()
