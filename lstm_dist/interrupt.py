"""Ctrl-C, noticed between two steps."""

import signal
from types import TracebackType
from typing import Iterable, Iterator, Optional, Type, TypeVar

T = TypeVar("T")


class Interrupt:
    """While it is entered, Ctrl-C raises KeyboardInterrupt only where it cannot get lost.

    Python raises it wherever it happens to be, and one time in twenty that is inside MXNet, which loses it in the
    `__del__` of an array or takes it for a TypeError. The handler here sets a flag, which is looked at between two
    items of a loop and at the end.
    """

    def __init__(self) -> None:
        self._noticed = False

    def _notice(self, *_: object) -> None:
        self._noticed = True

    def _raise(self) -> None:
        if self._noticed:
            raise KeyboardInterrupt

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a look at the flag before each."""
        for item in items:
            self._raise()
            yield item

    def __enter__(self) -> "Interrupt":
        self._previous = signal.signal(signal.SIGINT, self._notice)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)
        if error is None:
            self._raise()
