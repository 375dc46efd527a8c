"""Base class of the group of ranks that prepare a text, and such a group of a single process."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import List, NoReturn

import numpy as np

from lstm_dist.comm.process_group import Group
from lstm_dist.comm.rank_file import LocalFile, RankFile


class RankGroup(Group):
    """A group of ranks that sum arrays of numpy and write one file."""

    @abstractmethod
    def sum_(self, array: np.ndarray) -> None:
        """Replace `array` by its sum over all ranks, on every rank."""

    @abstractmethod
    def create_file(self, path: Path) -> RankFile:
        """Create or truncate a file that all ranks write; collective.

        Raises:
            UserError: when it cannot be opened.
        """


class SingleRank(RankGroup):
    """A group of one process, which needs no MPI."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def allgather_bytes(self, data: bytes, name: str) -> List[bytes]:  # noqa: ARG002 - there is nothing to match
        """Return the bytes of this process."""
        return [data]

    def sum_(self, array: np.ndarray) -> None:
        """Do nothing, because `array` is its own sum."""

    def create_file(self, path: Path) -> RankFile:
        """See `RankGroup`."""
        return LocalFile(path, is_new=True)

    def leave(self) -> None:
        """Do nothing, because there is no other rank to wait for."""

    def abort(self, status: int) -> NoReturn:
        """End this process."""
        os._exit(status)
