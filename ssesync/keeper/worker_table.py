"""Which workers gunicorn's master has started, as its workers know it: a page of memory that all of them share.

A worker that stops has to know whether it has a successor. gunicorn forks the successors and sends SIGTERM to the old
workers in the next moment, when a successor may not have run its first line. When the whole server stops, there is no
successor, and nothing may wait for one. The master writes each worker's age before it forks the worker, so that an old
worker knows the difference at once.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

__all__ = ["WorkerTable", "note_fork", "worker_table"]

_NEWEST = struct.Struct("=Q")
_FORKED, _READY = 0, 1


class WorkerTable:
    """The table. It is made in the master, before the first fork."""

    #: How many of the newest workers it knows.
    SIZE = mmap.PAGESIZE - _NEWEST.size

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def newest(self) -> int:
        """The age of the newest worker; 0: there is none. gunicorn counts workers by their age, from 1."""
        age: int = _NEWEST.unpack_from(self._page)[0]
        return age

    def forks(self, age: int) -> None:
        """A worker is about to be forked. In the master."""
        self._page[self._place(age)] = _FORKED
        _NEWEST.pack_into(self._page, 0, age)

    def is_ready(self, age: int) -> None:
        """A worker can be connected to, or never will be. In the worker."""
        self._page[self._place(age)] = _READY

    def starting(self, age: int) -> list[int]:
        """Find the workers that were forked after another one, and are not ready.

        :param age: the age of the other one.
        :return: their ages.
        """
        newest = self.newest
        first = max(age + 1, newest - self.SIZE + 1)
        return [each for each in range(first, newest + 1) if self._page[self._place(each)] != _READY]

    def _place(self, age: int) -> int:
        return _NEWEST.size + age % self.SIZE


# The master's, which its workers inherit.
_table: dict[None, WorkerTable] = {}


def note_fork(worker: Any) -> None:
    """A worker is about to be forked. In the master.

    :param worker: gunicorn's.
    """
    if None not in _table:
        _table[None] = WorkerTable()
    _table[None].forks(worker.age)


def worker_table() -> WorkerTable | None:
    """Get the table of this process's master.

    :return: the table; ``None``: the hook ``pre_fork`` is not set.
    """
    return _table.get(None)
