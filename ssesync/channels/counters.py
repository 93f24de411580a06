"""Counters that any thread may add to at any moment."""

from __future__ import annotations

import itertools
import operator
from collections import deque

__all__ = ["Counters"]

_LENGTH = 1 << 62


class Counters:
    """Counts exactly, and takes no lock: the caller may be a signal handler that has interrupted a call of this object.

    Each counter is an iterator of a known length: the count is the number of items that were taken from it. To take
    several items is one step of the interpreter.

    :param names: the counters.
    """

    def __init__(self, *names: str) -> None:
        self._iterators = {name: itertools.repeat(None, _LENGTH) for name in names}

    def add(self, name: str, by: int) -> None:
        """Add to a counter.

        :param name: the counter.
        :param by: how much to add.
        """
        deque(itertools.islice(self._iterators[name], by), maxlen=0)

    def snapshot(self) -> dict[str, int]:
        """Read all counters.

        :return: the counts by name.
        """
        return {name: _LENGTH - operator.length_hint(rest) for name, rest in self._iterators.items()}
