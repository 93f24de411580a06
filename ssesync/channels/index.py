"""Index: the holders of channels, by the channels' names and by patterns, without a test of each pattern.

A pattern is found by its literal text: its beginning, its end, and the longest text between two ``*``. Patterns whose
literals have the same lengths share a table. The index searches it for the parts of a channel's name that have these
lengths, and matches only the patterns found there. So 5,000 patterns such as ``user:1:*``, which one by one took
0.87 ms a name, cost one search of a table for each length of a user's number.

Thousands of clients have a channel of their own. So for a single holder the table has the holder itself and no ``dict``
of it, which would take 232 bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

from .message import CONTROL

__all__ = ["Index", "drop", "having", "matches", "put"]

K = TypeVar("K")
T = TypeVar("T")

# The beginning of a pattern, its end, and the longest text in between.
Literals = tuple[str, str, str]
Lengths = tuple[int, int, int]


def put(table: dict[K, T | dict[T, None]], name: K, holder: T) -> None:
    """Add a holder of a name.

    :param table: the holders by name.
    :param name: the name.
    :param holder: the holder: neither ``None`` nor a ``dict``.
    """
    held = table.get(name)
    if held is None:
        table[name] = holder
    elif isinstance(held, dict):
        held[holder] = None
    elif held != holder:
        table[name] = {held: None, holder: None}


def drop(table: dict[K, T | dict[T, None]], name: K, holder: T) -> None:
    """Remove a holder of a name, if it is there.

    :param table: the holders by name.
    :param name: the name.
    :param holder: the holder.
    """
    held = table.get(name)
    if isinstance(held, dict):
        held.pop(holder, None)
        if len(held) == 1:
            (table[name],) = held
    elif held is not None and held == holder:
        del table[name]


def having(table: dict[K, T | dict[T, None]], name: K) -> Collection[T]:
    """The holders of a name.

    :param table: the holders by name.
    :param name: the name.
    :return: all of them. Read it before the table changes; don't change it.
    """
    held = table.get(name)
    if held is None:
        return ()
    return held if isinstance(held, dict) else (held,)


def matches(pattern: str, channel: str) -> bool:
    """Whether a pattern, in which each ``*`` stands for any characters or none, matches a channel.

    Each text between two ``*`` is searched for once, so the time grows with the length of the name and not, as with a
    regular expression, by a power of it for each ``*``.

    :param pattern: the pattern.
    :param channel: the channel's name.
    :return: whether it matches.
    """
    start, *middle = pattern.split("*")
    if not middle:
        return pattern == channel
    end = middle.pop()
    offset, stop = len(start), len(channel) - len(end)
    if offset > stop or not channel.startswith(start) or not channel.endswith(end):
        return False
    for text in middle:
        offset = channel.find(text, offset, stop)
        if offset < 0:
            return False
        offset += len(text)
    return True


class Index(Generic[T]):
    """See the module. It takes no lock: one thread at a time may use it."""

    def __init__(self) -> None:
        #: The holders of a channel, by its name.
        self.names: dict[str, T | dict[T, None]] = {}
        #: The holders of a pattern.
        self.patterns: dict[str, T | dict[T, None]] = {}
        self._literals: dict[Lengths, dict[Literals, str | dict[str, None]]] = {}

    def add(self, holder: T, channels: Iterable[str], patterns: Iterable[str]) -> None:
        """Add a holder of channels, and of all channels that patterns match. A second call does nothing.

        :param holder: the holder.
        :param channels: names of channels.
        :param patterns: patterns of names.
        """
        for channel in channels:
            put(self.names, channel, holder)
        for pattern in patterns:
            if pattern not in self.patterns:
                literals = _literals(pattern)
                put(self._literals.setdefault(_lengths(literals), {}), literals, pattern)
            put(self.patterns, pattern, holder)

    def remove(self, holder: T, channels: Iterable[str], patterns: Iterable[str]) -> None:
        """Undo :meth:`add`. Ignores channels and patterns that were not added.

        :param holder: the holder.
        :param channels: names of channels.
        :param patterns: patterns of names.
        """
        for channel in channels:
            drop(self.names, channel, holder)
        for pattern in patterns:
            if pattern in self.patterns:
                drop(self.patterns, pattern, holder)
                if pattern not in self.patterns:
                    self._forget(pattern)

    def _forget(self, pattern: str) -> None:
        literals = _literals(pattern)
        lengths = _lengths(literals)
        drop(self._literals[lengths], literals, pattern)
        if not self._literals[lengths]:
            del self._literals[lengths]

    def candidates(self, channel: str) -> list[str]:
        """The patterns that may match a channel.

        :param channel: the channel's name.
        :return: all patterns that match, and some others whose literals are in the name. Empty for the brokers' own
            channel.
        """
        if channel == CONTROL:
            return []
        found: list[str] = []
        size = len(channel)
        for (start, end, middle), table in self._literals.items():
            last = size - end - middle
            if last < start:
                continue
            first, final = channel[:start], channel[size - end :]
            # The text in between may be at any offset; without one there is one offset to try.
            for offset in range(start, last + 1) if middle else (start,):
                found += having(table, (first, final, channel[offset : offset + middle]))
        return list(dict.fromkeys(found)) if len(found) > 1 else found

    def having(self, channel: str) -> Collection[T]:
        """The holders of a channel.

        :param channel: the channel's name.
        :return: each once. Read it before the index changes; don't change it.
        """
        named = having(self.names, channel)
        matching = (
            [pattern for pattern in self.candidates(channel) if matches(pattern, channel)] if self._literals else []
        )
        if not matching:
            return named
        found = dict.fromkeys(named)
        for pattern in matching:
            found.update(dict.fromkeys(having(self.patterns, pattern)))
        return found

    def is_same_for_all(self, count: int) -> bool:
        """Whether all holders have the same names and patterns.

        :param count: how many holders there are.
        :return: whether each of them has all.
        """
        tables = (self.names, self.patterns)
        return all(len(having(table, name)) == count for table in tables for name in table)


def _literals(pattern: str) -> Literals:
    start, *middle = pattern.split("*")
    end = middle.pop() if middle else ""
    return start, end, max(middle, key=len, default="")


def _lengths(literals: Literals) -> Lengths:
    start, end, middle = literals
    return len(start), len(end), len(middle)
