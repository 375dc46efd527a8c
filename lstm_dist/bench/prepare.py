"""Compare the preparation of a text with a plain loop over its characters, both from file to file."""

import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import numpy as np

from lstm_dist.bench.table import markdown
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.data.corpus import PACKAGED, join_lines
from lstm_dist.data.text_chunks import find_text_files
from lstm_dist.data.token_file import token_type
from lstm_dist.data.tokenize import Advance, TextShard, VocabularyRules, prepare_corpus

LOOP_BYTES = 2**24  # size of the loop's text: the loop is slow, and its time proportional to the size


def encode_in_loop(text: Path, folder: Path) -> None:
    """Encode a text in a loop: count the characters, number them, and look each one up in a dictionary."""
    characters = join_lines(text.read_bytes().decode("utf-8"))
    counts: Counter = Counter()
    for character in characters:
        counts[character] += 1
    tokens = {character: number for number, character in enumerate(sorted(counts))}
    encoded = np.array([tokens[character] for character in characters], dtype=token_type(len(tokens)))
    np.save(folder / "loop.npy", encoded)


def write_songs(path: Path, size: int) -> None:
    """Write the packaged songs repeatedly, until the file has more than `size` bytes."""
    songs = PACKAGED.read_bytes()
    with path.open("wb") as file:
        for _ in range(size // len(songs) + 1):
            file.write(songs)


@contextmanager
def no_progress_bar(phase: str, size: int) -> Iterator[Advance]:  # noqa: ARG001 - there is no bar to label
    """Ignore the progress of a phase."""
    yield lambda _: None


def measure(megabytes: int, turns: int, advance: Callable[[], object]) -> Dict[str, List[float]]:
    """Return megabytes per second of "ours" and "loop", measured in turns on the packaged songs, repeated.

    Args:
        megabytes: size of the text.
        turns: number of measurements of each method.
        advance: called after every measurement.
    """
    rates: Dict[str, List[float]] = {"ours": [], "loop": []}
    with MpiGroup.open() as group, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        sizes = {"ours": megabytes * 10**6, "loop": min(megabytes * 10**6, LOOP_BYTES)}
        for name, size in sizes.items():
            write_songs(folder / name, size)
        methods: Dict[str, Callable[[Path], object]] = {
            "ours": lambda text: prepare_corpus(
                TextShard(find_text_files([text]), group), group, folder, VocabularyRules(), no_progress_bar
            ),
            "loop": lambda text: encode_in_loop(text, folder),
        }
        for _ in range(turns):
            for name in rates:
                started = time.perf_counter()
                methods[name](folder / name)
                rates[name].append((folder / name).stat().st_size / 1e6 / (time.perf_counter() - started))
                advance()
    return rates


def format_table(rates: Dict[str, List[float]]) -> str:
    """Format one row per method."""
    rows = []
    for name, values in rates.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        ratio = np.median(np.array(values) / np.array(rates["loop"]))
        numbers = [f"{median:.1f}", f"{low:.1f} - {high:.1f}", f"{ratio:.1f}"]
        rows.append(dict(zip(["method", "MB/s", "quartiles", "rate / loop"], [name, *numbers])))
    return markdown(rows)
