"""Counters: how often something has happened, counted by any thread at any moment."""

from __future__ import annotations

from collections import Counter, deque

from ..locks import make_lock

__all__ = ["Counters"]


class Counters:
    """Counts exactly, and waits for no lock, not even in a signal handler that has interrupted its thread in here."""

    def __init__(self) -> None:
        self._lock = make_lock("channels.counters")
        self._waiting: deque[tuple[str, int]] = deque()
        self._totals: Counter[str] = Counter()

    def add(self, name: str, by: int) -> None:
        """Add to a counter.

        :param name: the counter.
        :param by: how much to add.
        """
        if by:
            self._waiting.append((name, by))
            self._add_up()

    def __getitem__(self, name: str) -> int:
        self._add_up()
        return self._totals[name]

    def _add_up(self) -> None:
        # The thread that holds the lock does it for all, and checks again after it has released the lock.
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                while self._waiting:
                    name, by = self._waiting.popleft()
                    self._totals[name] += by
            finally:
                self._lock.release()
