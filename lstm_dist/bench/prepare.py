"""Compare text preparation with a plain loop over characters, both from file to file."""

import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import numpy as np
from tabulate import tabulate

from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.data.corpus import PACKAGED, join_lines
from lstm_dist.data.text_chunks import find_texts
from lstm_dist.data.token_file import token_type
from lstm_dist.data.tokenize import Advance, Rules, Texts, prepare

LOOP = 2**24  # bytes for the loop, whose time is proportional to them


def with_a_loop(text: Path, folder: Path) -> None:
    """Count the characters, number them, and look each one up in a dictionary."""
    whole = join_lines(text.read_bytes().decode("utf-8"))
    counts: Counter = Counter()
    for character in whole:
        counts[character] += 1
    tokens = {character: number for number, character in enumerate(sorted(counts))}
    encoded = np.array([tokens[character] for character in whole], dtype=token_type(len(tokens)))
    np.save(folder / "loop.npy", encoded)


def write_songs(path: Path, size: int) -> None:
    """Write the packaged songs repeatedly, to at least `size` bytes."""
    songs = PACKAGED.read_bytes()
    with path.open("wb") as file:
        for _ in range(size // len(songs) + 1):
            file.write(songs)


@contextmanager
def unwatched(what: str, size: int) -> Iterator[Advance]:  # noqa: ARG001 - nobody looks
    """Show no progress bar."""
    yield lambda _: None


def measure(megabytes: int, turns: int, advance: Callable[[], object]) -> Dict[str, List[float]]:
    """Return megabytes per second of both, measured in turns on the packaged songs, repeated.

    Args:
        megabytes: size of the text.
        turns: measurements of each.
        advance: called after every measurement.
    """
    found: Dict[str, List[float]] = {"ours": [], "a loop": []}
    with MpiGroup.open() as group, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sizes = {"ours": megabytes * 10**6, "a loop": min(megabytes * 10**6, LOOP)}
        for name, size in sizes.items():
            write_songs(folder / name, size)
        act: Dict[str, Callable[[Path], object]] = {
            "ours": lambda text: prepare(Texts(find_texts([text]), group), group, folder, Rules(), unwatched),
            "a loop": lambda text: with_a_loop(text, folder),
        }
        for _ in range(turns):
            for name in found:
                began = time.perf_counter()
                act[name](folder / name)
                found[name].append((folder / name).stat().st_size / 1e6 / (time.perf_counter() - began))
                advance()
    return found


def table(found: Dict[str, List[float]]) -> str:
    """Format one row per method."""
    rows = []
    for name, rates in found.items():
        low, median, high = np.percentile(rates, [25, 50, 75])
        times = np.median(np.array(rates) / np.array(found["a loop"]))
        numbers = [f"{median:.1f}", f"{low:.1f} - {high:.1f}", f"{times:.1f}"]
        rows.append(dict(zip(["", "MB/s", "quartiles", "times a loop"], [name, *numbers])))
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, stralign="right")
