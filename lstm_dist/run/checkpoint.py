"""The checkpoint format: everything needed to resume a run, in a `.safetensors` file that is verified when read.

It holds the D2L chapter's 14 parameters under their names, 12 more for every layer above the first, the hidden state of
all streams as `state.h` and `state.c`, and the rest as JSON in the file's metadata. `safetensors.numpy.load_file`
reads it without this project. It does not use pickle.
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

# The hash covers every byte of the file, with its own digits replaced by zeros. Quotes inside a JSON string are
# escaped, so nothing else in the header can match this pattern.
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_BLANK = '"sha256":"' + "0" * 64 + '"'


class DamagedError(UserError):
    """A checkpoint file whose content is invalid or differs from what was written."""


class Checkpoint(NamedTuple):
    """The content of a checkpoint file.

    Attributes:
        parameters: under the names of the D2L chapter.
        state: `state.h` and `state.c`, (B, layers * H) each, of all streams; empty in a weights-only file.
        vocabulary: None in a file that another program wrote without one.
        facts: other metadata, by name.
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
    """Return the bytes of a checkpoint.

    Args:
        parameters: under the names of the D2L chapter.
        vocabulary: stored with the weights, so that a checkpoint suffices for sampling.
        state: under the names of STATE.
        **facts: other metadata, written as JSON.
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
        name: its name in error messages.
        needs_digest: refuse a file without a hash; False accepts weights from other programs.

    Raises:
        DamagedError: if they are not exactly the output of `pack`.
        UserError: if they have another format version.
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
        raise DamagedError(f"{name}: is not an intact .safetensors file ({error})", ExitStatus.BAD_DATA) from None
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
    """Read a file, unless it is larger than a checkpoint of any model that this machine could train.

    Raises:
        OSError: if it cannot be read or is too large.
    """
    if path.stat().st_size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        raise OSError(errno.EFBIG, "larger than half of this machine's memory")
    return path.read_bytes()


def load_checkpoint(path: Path, flag: str) -> Checkpoint:
    """Read the weights in a file of this project or another program.

    Args:
        path: the file.
        flag: the flag to name in error messages, such as "--init".

    Raises:
        UserError: if the file is missing or is not an intact safetensors file.
    """
    if not os.path.isfile(path):  # Path.is_file raises for some errors, such as a too long name
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
            raise ValueError("it has no hash")
        return
    start = 8 + found.start(1)
    whole = hashlib.sha256(data[:start])
    whole.update(b"0" * 64)
    whole.update(data[start + 64 :])
    if whole.hexdigest().encode() != found[1]:
        raise ValueError("its content does not match its hash")
