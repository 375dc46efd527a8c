"""The interface between the model and everything else: what one worker computes on arrays.

The trainer, the evaluator and text generation use nothing but this interface, so that implementations for other devices
need no change there. CharLSTM implements it for CPUs, CudaLSTM for GPUs.
"""

from abc import ABC, abstractmethod
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.flat_buffer import GradientBuffer, ParameterBuffer
from lstm_dist.model.parameters import parameter_shapes


class LSTMState(NamedTuple):
    """State carried from one window to the next; both (B, layers * H), lowest layer first."""

    h: mx.nd.NDArray
    c: mx.nd.NDArray


class CharacterReader(ABC):
    """Reads one stream character by character from the zero state."""

    @abstractmethod
    def read(self, token: int) -> np.ndarray:
        """Return the logits, (V,), of the character after `token`."""


class LanguageModel(ABC):
    """A character-level language model on the device of one worker: its parameters, and what is computed with them.

    Methods that return arrays on the device are asynchronous.

    Attributes:
        vocab_size, hidden_size, layers: sizes of the model.
        ctx: the device.
        parameters: the trained parameters.
        gradients: filled by `loss_and_gradients`, with the control flags.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context, layers: int = 1) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.layers = layers
        self.ctx = ctx
        self.parameters = ParameterBuffer(vocab_size, hidden_size, ctx, layers=layers)
        self.gradients = GradientBuffer(vocab_size, hidden_size, ctx, layers=layers)

    @property
    @abstractmethod
    def arithmetic(self) -> str:
        """Return what the rounding of results depends on besides the operands, in a few words for the user."""

    @property
    def weights(self) -> mx.nd.NDArray:
        """Return all parameters as one vector, (n,)."""
        return self.parameters.flat

    @property
    def exchanged(self) -> mx.nd.NDArray:
        """Return the vector to average over all workers: the control flags, then the gradients of the last window.

        It has the same length on all workers, and is shorter where `loss_and_gradients` was given the characters of the
        window. The flags are 1 where this worker requests an action, else 0, or NaN if its loss is not finite.
        Averaging keeps a positive or NaN flag, and so makes it known to all workers.
        """
        return self.gradients.exchanged

    def load(self, named: Mapping[str, np.ndarray], source: str) -> None:
        """Load parameters under the names of the D2L chapter.

        Raises:
            UserError: naming `source` and the parameter, if one is missing, unknown, has a different shape or holds
                non-finite numbers.
        """
        shapes = parameter_shapes(self.vocab_size, self.hidden_size, self.layers)
        for name in [*shapes, *named]:
            found = named[name].shape if name in named else None
            if found != shapes.get(name):
                is_of = "is missing" if found is None else f"has shape {found}"
                needs = f"needs {shapes[name]}" if name in shapes else "has none of that name"
                raise UserError(
                    f"{source}: parameter {name} {is_of}, this model {needs}: give weights of the same vocabulary, "
                    "--hidden-size and --layers",
                    ExitStatus.BAD_CONFIG,
                )
        for name, values in named.items():
            if not np.isfinite(values).all():
                raise UserError(f"{source}: parameter {name} holds numbers that are not finite", ExitStatus.BAD_DATA)
        self.set_parameters(named)

    def set_parameters(self, named: Mapping[str, np.ndarray]) -> None:
        """Replace all parameters by those with the names and shapes of `parameter_shapes`."""
        self.parameters.from_named(named)

    def get_parameters(self) -> Dict[str, np.ndarray]:
        """Return copies of all parameters under the names of `parameter_shapes`."""
        return self.parameters.to_named()

    def get_gradients(self) -> Dict[str, np.ndarray]:
        """Return copies of the last gradients under the names of `parameter_shapes`."""
        return self.gradients.to_named()

    @abstractmethod
    def zero_state(self, streams: int) -> LSTMState:
        """Return the zero state, which precedes the first character."""

    @abstractmethod
    def make_state(self, h: np.ndarray, c: np.ndarray) -> LSTMState:
        """Return a state with these values, (B, layers * H) each, on the device."""

    @abstractmethod
    def loss_and_gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        state: LSTMState,
        requests: ControlFlags = NO_REQUEST,
        characters: Optional[np.ndarray] = None,
    ) -> Tuple[mx.nd.NDArray, LSTMState]:
        """Run forward and backward through one window; fills `exchanged`.

        Args:
            inputs, targets: (B, T) tokens.
            state: of B streams.
            requests: this worker's control flags.
            characters: the sorted distinct inputs of all workers in this step. The gradient of W_x is zero elsewhere,
                and is neither exchanged nor used. None for all characters.

        Returns:
            The loss summed over the B * T characters, in nats, (1,), on the device; and the final state.
        """

    @abstractmethod
    def loss(self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState) -> Tuple[mx.nd.NDArray, LSTMState]:
        """Run forward through one window; returns the same as `loss_and_gradients` without computing gradients."""

    @abstractmethod
    def clip_by_global_norm(self, max_norm: float) -> Tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """Return the global norm of the averaged gradients and the factor min(max_norm / norm, 1), (1,) each."""

    @abstractmethod
    def sgd_update_(self, learning_rate: float, factor: mx.nd.NDArray) -> None:
        """Subtract learning_rate * factor * gradients from the parameters, in place."""

    @abstractmethod
    def step_numbers(self, loss: mx.nd.NDArray, grad_norm: mx.nd.NDArray) -> mx.nd.NDArray:
        """Return loss, gradient norm and averaged control flags in one array, (2 + FLAGS,), for one transfer."""

    @abstractmethod
    def reader(self) -> CharacterReader:
        """Return a reader with the current parameters, for generation."""
