"""A trained model: the weights and the vocabulary of a checkpoint, or of the last one of a run."""

import os
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np

from lstm_dist.checkpoint import load_checkpoint
from lstm_dist.corpus import Vocabulary
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model import CharLSTM
from lstm_dist.store import Store

SOURCE = "RUN_DIR_OR_CHECKPOINT"  # what the command lines call it


class Trained(NamedTuple):
    """A model and the characters that it knows."""

    model: CharLSTM
    vocabulary: Vocabulary


def load_trained(source: Path, ctx: mx.Context) -> Trained:
    """The model of a `.safetensors` file, or of the last checkpoint of a run, at its end or under way.

    Raises:
        UserError: naming SOURCE, when there is none, or it is no model of this program.
    """
    path = _newest(source) if os.path.isdir(source) else source
    checkpoint = load_checkpoint(path, SOURCE)
    if checkpoint.vocabulary is None:
        raise UserError(f"{SOURCE} {path}: holds no vocabulary; give a file that jobs/train.py wrote")
    shape = np.shape(checkpoint.parameters.get("W_hi", 0))
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise UserError(f"{SOURCE} {path}: parameter W_hi has shape {shape}; give a file that jobs/train.py wrote")
    model = CharLSTM(len(checkpoint.vocabulary), shape[0], ctx)
    model.load(checkpoint.parameters, str(path))
    return Trained(model, checkpoint.vocabulary)


def _newest(run_dir: Path) -> Path:
    paths = Store(run_dir / "checkpoints").paths()
    if not paths:
        raise UserError(
            f"{SOURCE} {run_dir}: there is no checkpoint in it; give a run of jobs/train.py, or a file",
            ExitStatus.NO_INPUT,
        )
    return paths[0]
