"""Counters: how often something has happened, counted by any thread at any moment."""

from __future__ import annotations

import itertools
import operator
from collections import deque

__all__ = ["Counters"]

_MOST = 1 << 62


class Counters:
    """Counts exactly, and takes no lock: a signal handler may have interrupted its thread in here.

    Each counter is an iterator over ``None`` of which so many are left. Taking some of them is one step of the
    interpreter.

    :param names: the counters.
    """

    def __init__(self, *names: str) -> None:
        self._left = {name: itertools.repeat(None, _MOST) for name in names}

    def add(self, name: str, by: int) -> None:
        """Add to a counter.

        :param name: the counter.
        :param by: how much to add.
        """
        deque(itertools.islice(self._left[name], by), maxlen=0)

    def snapshot(self) -> dict[str, int]:
        """Read all counters.

        :return: the counts by name.
        """
        return {name: _MOST - operator.length_hint(left) for name, left in self._left.items()}
