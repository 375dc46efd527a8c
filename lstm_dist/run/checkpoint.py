"""One checkpoint: everything that a run needs to go on, as the bytes of a `.safetensors` file, whole or refused.

The document's 14 parameters stand under their names, with 12 more for every layer above the first, the hidden state of
all streams as `state.h` and `state.c`, and the rest in the file's metadata, as JSON. `safetensors.numpy.load_file`
reads it without this project. No pickle.
"""

import errno
import hashlib
import json
import os
import re
import struct
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import ExitStatus, UserError

FORMAT = 1
STATE = ("state.h", "state.c")

# The hash covers every byte of the file, its own place filled with zeros. Inside of a JSON string the quotes would be
# escaped, so nothing else in the header can look like it.
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_BLANK = '"sha256":"' + "0" * 64 + '"'


class DamagedError(UserError):
    """A file that is not what was written."""


class Checkpoint(NamedTuple):
    """What one file holds.

    Attributes:
        parameters: under the document's names.
        state: `state.h` and `state.c`, (B, layers * H) each, of all streams; empty in a file of weights alone.
        vocabulary: None in a file that some other program wrote without one.
        facts: what else was kept, by name.
    """

    parameters: Dict[str, np.ndarray]
    state: Dict[str, np.ndarray]
    vocabulary: Optional[Vocabulary]
    facts: Dict[str, Any]


def pack(
    parameters: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    state: Optional[Mapping[str, np.ndarray]] = None,
    **facts: Any,
) -> bytes:
    """The bytes of a checkpoint.

    Args:
        parameters: under the document's names.
        vocabulary: travels with the weights, so that a checkpoint is enough to sample from.
        state: under the names of STATE.
        **facts: anything else worth keeping, written as JSON.
    """
    metadata = {k: json.dumps(v) for k, v in facts.items()}
    metadata.update(format=str(FORMAT), vocabulary=vocabulary.characters, sha256="0" * 64)
    data = save({**parameters, **(state or {})}, metadata)
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(_BLANK.encode(), _BLANK.replace("0" * 64, digest).encode(), 1)


def unpack(data: bytes, name: str, needs_digest: bool = True) -> Checkpoint:
    """Read the bytes of a checkpoint.

    Args:
        data: the whole file.
        name: what the user calls it, for messages.
        needs_digest: refuse what carries no hash; without it, weights that another program wrote are welcome.

    Raises:
        DamagedError: when they are not exactly what `pack` made.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + length]
        if len(header) < length:
            raise ValueError("its header is cut off")
        _verify(data, header, needs_digest)
        tensors = load(data)
        metadata = dict(json.loads(header).get("__metadata__") or {})
        vocabulary = metadata.pop("vocabulary", None)
        version, signed = metadata.pop("format", None), metadata.pop("sha256", None)
        facts = {k: json.loads(v) for k, v in metadata.items()} if signed else {}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError) as error:
        raise DamagedError(f"{name}: is not a whole .safetensors file ({error})", ExitStatus.BAD_DATA) from None
    if signed and version != str(FORMAT):
        raise UserError(
            f"{name}: has format {version}, this program reads {FORMAT}: use the version that wrote it",
            ExitStatus.BAD_CONFIG,
        )
    if vocabulary and Vocabulary(vocabulary).characters != vocabulary:
        raise DamagedError(f"{name}: is damaged, the vocabulary in it is not sorted", ExitStatus.BAD_DATA)
    return Checkpoint(
        parameters={k: v for k, v in tensors.items() if k not in STATE},
        state={k: v for k, v in tensors.items() if k in STATE},
        vocabulary=Vocabulary(vocabulary) if vocabulary else None,
        facts=facts,
    )


def read(path: Path) -> bytes:
    """The bytes of a file, unless they are more than a model that this machine could train would make.

    Raises:
        OSError: when it cannot be read.
    """
    if path.stat().st_size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        raise OSError(errno.EFBIG, "larger than half of this machine's memory")
    return path.read_bytes()


def load_checkpoint(path: Path, flag: str) -> Checkpoint:
    """Read the weights of a file, this project's or another's.

    Args:
        path: the file.
        flag: what the user calls it, for messages: "--init FILE".

    Raises:
        UserError: when the file is missing or is not a whole safetensors file.
    """
    if not os.path.isfile(path):  # Path.is_file lets some errors through, a name that is too long among them
        what = "is a folder: name one of its .safetensors files" if os.path.isdir(path) else "no such file"
        raise UserError(f"{flag} {path}: {what}", ExitStatus.NO_INPUT)
    try:
        data = read(path)
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    return unpack(data, f"{flag} {path}", needs_digest=False)


def _verify(data: bytes, header: bytes, needed: bool) -> None:
    found = _DIGEST.search(header)
    if found is None:
        if needed:
            raise ValueError("it carries no hash")
        return
    start = 8 + found.start(1)
    whole = hashlib.sha256(data[:start])
    whole.update(b"0" * 64)
    whole.update(data[start + 64 :])
    if whole.hexdigest().encode() != found[1]:
        raise ValueError("its bytes are not those that were written")
