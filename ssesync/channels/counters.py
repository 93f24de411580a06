"""Counters: how often something has happened, counted from any thread and at any moment."""

from __future__ import annotations

from collections import Counter, deque

from ..locks import make_lock

__all__ = ["Counters"]


class Counters:
    """Counts exactly, and waits for no lock: also in a signal handler that has interrupted its thread in here."""

    def __init__(self) -> None:
        self._lock = make_lock("channels.counters")
        self._waiting: deque[tuple[str, int]] = deque()
        self._totals: Counter[str] = Counter()

    def add(self, name: str, by: int) -> None:
        """Count."""
        if by:
            self._waiting.append((name, by))
            self._add_up()

    def __getitem__(self, name: str) -> int:
        self._add_up()
        return self._totals[name]

    def _add_up(self) -> None:
        # Whoever holds the lock does it for all, and looks again after the lock was released.
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                while self._waiting:
                    name, by = self._waiting.popleft()
                    self._totals[name] += by
            finally:
                self._lock.release()
