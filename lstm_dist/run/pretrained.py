"""Loading a trained model: the weights and the vocabulary of a checkpoint, or of the last one of a run."""

import os
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

import mxnet as mx
import numpy as np

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.create import create_model
from lstm_dist.model.language_model import LanguageModel
from lstm_dist.model.parameters import layers_of
from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.checkpoint_dir import CheckpointDir

SOURCE = "RUN_DIR_OR_CHECKPOINT"  # the name of the command-line argument


D2L_PREFIXES = ("分开", "不分开", "战争中部队")  # the beginnings of samples in the D2L chapter


class Pretrained(NamedTuple):
    """A trained model and its vocabulary.

    Attributes:
        model: with its weights.
        vocabulary: of the text that it was trained on.
        prefixes: the beginnings of the samples of its run; at least one, of characters of the vocabulary.
    """

    model: LanguageModel
    vocabulary: Vocabulary
    prefixes: Sequence[str]


def load_pretrained(path: Path, ctx: mx.Context) -> Pretrained:
    """Load the model in a `.safetensors` file.

    Raises:
        UserError: naming SOURCE, if there is none, or it is not a model of this program.
    """
    checkpoint = load_checkpoint(path, SOURCE)
    if checkpoint.vocabulary is None:
        raise UserError(f"{SOURCE} {path}: holds no vocabulary; give a file that jobs/train.py wrote")
    shape = np.shape(checkpoint.parameters.get("W_hi", 0))
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise UserError(f"{SOURCE} {path}: parameter W_hi has shape {shape}; give a file that jobs/train.py wrote")
    layers = layers_of(checkpoint.parameters)
    model = create_model(len(checkpoint.vocabulary), shape[0], ctx, layers)
    model.load(checkpoint.parameters, str(path))
    return Pretrained(model, checkpoint.vocabulary, _prefixes(checkpoint.facts, checkpoint.vocabulary))


def _prefixes(facts: Mapping[str, Any], vocabulary: Vocabulary) -> Sequence[str]:
    """Return the prefixes of the run that wrote a checkpoint; of a file without them, the chapter's or a character."""
    own = facts.get("config", {}).get("prefix") or D2L_PREFIXES[:1]
    known = [prefix for prefix in own if not vocabulary.missing(prefix)]
    return known or [next(filter(str.isalnum, vocabulary.characters), vocabulary.characters[0])]


def find_checkpoint(source: Path, flag: str = SOURCE) -> Path:
    """Return a given file as it is, or the last checkpoint of a finished or running run or in its folder of them.

    Raises:
        UserError: naming the flag, if the run has no checkpoint.
    """
    if not os.path.isdir(source):
        return source
    paths = CheckpointDir.of_run(source).paths() or CheckpointDir(source).paths()
    if not paths:
        raise UserError(
            f"{flag} {source}: has no checkpoint; give a run of jobs/train.py, or a file",
            ExitStatus.NO_INPUT,
        )
    return paths[0]
