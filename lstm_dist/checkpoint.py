"""Weights in a file, whole or absent: `.safetensors` with the document's 14 names, and the vocabulary inside."""

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lstm_dist.corpus import Vocabulary
from lstm_dist.errors import UserError


class Checkpoint(NamedTuple):
    """What one file holds; `vocabulary` is None in a file that some other program wrote without one."""

    parameters: Dict[str, np.ndarray]
    vocabulary: Optional[Vocabulary]


def save_checkpoint(path: Path, parameters: Mapping[str, np.ndarray], vocabulary: Vocabulary, **facts: Any) -> None:
    """Write a checkpoint so that `path` is, at every moment, the old file or the new one.

    Args:
        path: where to; its folder is made.
        parameters: under the document's names.
        vocabulary: travels with the weights, so that a checkpoint is enough to sample from.
        **facts: anything else worth keeping, written as JSON.
    """
    metadata = {"vocabulary": vocabulary.characters, **{k: json.dumps(v) for k, v in facts.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(save(dict(parameters), metadata))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path, flag: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        flag: what the user calls it, for messages: "--init FILE".

    Raises:
        UserError: when the file is missing or is not a whole safetensors file.
    """
    if not os.path.isfile(path):  # Path.is_file lets some errors through, a name that is too long among them
        raise UserError(f"{flag} {path}: no such file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            characters = (file.metadata() or {}).get("vocabulary")
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: bfloat16 is a type that numpy does not have
        raise UserError(f"{flag} {path}: is not a whole .safetensors file ({error})") from None
    vocabulary = Vocabulary(characters) if characters else None
    if vocabulary and vocabulary.characters != characters:
        raise UserError(f"{flag} {path}: is damaged, the vocabulary in it is not sorted")
    return Checkpoint(parameters, vocabulary)
