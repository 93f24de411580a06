"""The statements of the SQLite broker, for a transaction that the caller begins and commits."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...entry import Entry, Start
from ...log import Page, merged
from ...message import Message, compiled
from ...options import Limits
from ..acceptance import ACCEPTED, ChannelState, accept, refusal
from .runs import end_run, find_run, meta

__all__ = [
    "append",
    "append_many",
    "has_channel",
    "head_of",
    "message_of",
    "page_of",
    "rows_after",
    "start_of",
    "trimmed_after",
]

# Events, and channels, that one publish removes at most.
_SWEEP = 50
# Channels that are found by one query. SQLite takes 999 parameters at least.
_AT_ONCE = 500


def head_of(connection: sqlite3.Connection) -> tuple[str, int]:
    """Read the log's head.

    :param connection: a connection in a transaction.
    :return: the epoch, and the number of the last event.
    """
    query = "SELECT (SELECT value FROM ssesync_meta WHERE name = 'epoch'), seq FROM sqlite_sequence WHERE name = ?"
    row: tuple[str, int] = connection.execute(query, ("ssesync_event",)).fetchone()
    return row


@dataclass(slots=True)
class _Channel:
    """A channel's row."""

    id: int
    events: int
    size: int
    trimmed: int
    closed: int
    run: int
    tail: int = 0
    """The number of the last event that is appended now."""


_FIND_CHANNEL = "SELECT id, events, bytes, trimmed, closed, run FROM ssesync_channel WHERE name = ?"
_INSERT = "INSERT INTO ssesync_event (channel, at, body, number) VALUES (?, ?, ?, 0)"
_UPDATE = "UPDATE ssesync_channel SET events = ?, bytes = ?, trimmed = ?, tail = ?, at = ? WHERE id = ?"


def append(connection: sqlite3.Connection, limits: Limits, channel: str, body: bytes, now: float) -> int:
    """Append an event, and remove what is beyond the limits.

    :param connection: a connection in a transaction that writes.
    :param limits: how much the log keeps.
    :param channel: the event's channel.
    :param body: the event, encoded without an id.
    :param now: the time.
    :return: the event's number.
    :raises ChannelClosed: the channel is closed, or is a run's.
    """
    row = connection.execute(_FIND_CHANNEL, (channel,)).fetchone()
    found = _add_channel(connection, channel) if row is None else _Channel(*row)
    if found.closed or found.run:
        raise refusal(channel)
    seq = connection.execute(_INSERT, (found.id, now, body)).lastrowid
    assert seq is not None
    found.events += 1
    found.size += len(body)
    found.tail = seq
    _trim(connection, limits, found, now)
    connection.execute(_UPDATE, (found.events, found.size, found.trimmed, seq, now, found.id))
    _remove_channels(connection, limits, now, count=row is None)
    return seq


def append_many(
    connection: sqlite3.Connection, limits: Limits, entries: Sequence[Entry], now: float, *, whole: bool
) -> list[int]:
    """Append events, and remove what is beyond the limits.

    :param connection: a connection in a transaction that writes.
    :param limits: how much the log keeps.
    :param entries: the events.
    :param now: the time.
    :param whole: raise if one is refused.
    :return: for each event its number, ``CLOSED`` or ``DUPLICATE``.
    :raises ChannelClosed: with ``whole``: a channel is closed, or is a run's.
    """
    channels, owners = _find_channels(connection, {entry.channel for entry in entries})

    def state_of(name: str) -> ChannelState:
        found = channels.get(name)
        if found is None:
            return ChannelState()
        return ChannelState(found.closed > 0, found.run > 0, found.events, owners[name])

    numbers = accept(entries, state_of, whole=whole)
    known = len(channels)
    (head,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ssesync_event'").fetchone()
    rows = []
    for index, answer in enumerate(numbers):
        if answer != ACCEPTED:
            continue
        entry = entries[index]
        channel = channels.get(entry.channel)
        if channel is None:
            channel = channels[entry.channel] = _add_channel(connection, entry.channel)
        head += 1
        numbers[index] = channel.tail = head
        channel.events += 1
        channel.size += len(entry.body)
        if entry.final:
            channel.closed = head
        rows.append((head, channel.id, now, entry.body, channel.events if channel.run else 0))
        if entry.outcome is not None:
            end_run(connection, entry.channel, entry.outcome, now)
    connection.executemany("INSERT INTO ssesync_event (seq, channel, at, body, number) VALUES (?, ?, ?, ?, ?)", rows)
    changed = [channel for channel in channels.values() if channel.tail]
    for channel in changed:
        if not channel.run:
            _trim(connection, limits, channel, now)
        if channel.closed:
            connection.execute("UPDATE ssesync_channel SET closed = ? WHERE id = ?", (channel.closed, channel.id))
    updates = [(each.events, each.size, each.trimmed, each.tail, now, each.id) for each in changed]
    connection.executemany(_UPDATE, updates)
    _remove_channels(connection, limits, now, count=len(channels) > known)
    return numbers


def _find_channels(
    connection: sqlite3.Connection, names: Collection[str]
) -> tuple[dict[str, _Channel], dict[str, str]]:
    """Find channels. One query for many of them, as each gives the interpreter's lock to the threads of all producers.

    :return: those that there are by their names, and the owners of those that are runs'.
    """
    channels, owners, every = dict[str, _Channel](), dict[str, str](), list(names)
    for some in (every[at : at + _AT_ONCE] for at in range(0, len(every), _AT_ONCE)):
        query = (
            "SELECT c.name, coalesce(r.owner, ''), c.id, c.events, c.bytes, c.trimmed, c.closed, c.run "
            "FROM ssesync_channel AS c LEFT JOIN ssesync_run AS r ON c.run AND r.name = c.name "
            f"WHERE c.name IN ({', '.join('?' * len(some))})"
        )
        for name, owner, *row in connection.execute(query, some).fetchall():
            owners[name], channels[name] = owner, _Channel(*row)
    return channels, owners


def _add_channel(connection: sqlite3.Connection, name: str) -> _Channel:
    base = meta(connection, "base")
    id = connection.execute(
        "INSERT INTO ssesync_channel (name, events, bytes, trimmed, tail, at) VALUES (?, 0, 0, ?, 0, 0)", (name, base)
    ).lastrowid
    assert id is not None
    return _Channel(id, 0, 0, base, 0, 0)


def _trim(connection: sqlite3.Connection, limits: Limits, channel: _Channel, now: float) -> None:
    """Remove a channel's events that are beyond the limits, never the last one."""
    before = channel.trimmed
    for seq, at, length in _oldest(connection, channel.id):
        aged = limits.max_age is not None and at < now - limits.max_age
        if seq == channel.tail or not (aged or channel.events > limits.max_events or channel.size > limits.max_bytes):
            break
        channel.events, channel.size, channel.trimmed = channel.events - 1, channel.size - length, seq
    if channel.trimmed != before:
        statement = "DELETE FROM ssesync_event WHERE channel = ? AND seq <= ?"
        connection.execute(statement, (channel.id, channel.trimmed))


def _oldest(connection: sqlite3.Connection, channel: int) -> Iterator[tuple[int, float, int]]:
    after = 0
    while True:
        rows = connection.execute(
            "SELECT seq, at, length(body) FROM ssesync_event WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?",
            (channel, after, 1 if not after else _SWEEP),
        ).fetchall()
        if not rows:
            return
        yield from rows
        after = rows[-1][0]


def _remove_channels(connection: sqlite3.Connection, limits: Limits, now: float, *, count: bool) -> None:
    too_many = 0
    if count:
        (channels,) = connection.execute("SELECT count(*) FROM ssesync_channel WHERE run = 0").fetchone()
        too_many = max(0, channels - limits.max_channels)
    cutoff = float("-inf") if limits.max_age is None else now - limits.max_age
    oldest = connection.execute(
        "SELECT id, tail, at FROM ssesync_channel WHERE run = 0 ORDER BY tail LIMIT ?",
        (min(max(too_many, 1), _SWEEP),),
    ).fetchall()
    for index, (id, tail, at) in enumerate(oldest):
        if index >= too_many and at >= cutoff:
            return
        connection.execute("DELETE FROM ssesync_event WHERE channel = ?", (id,))
        connection.execute("DELETE FROM ssesync_channel WHERE id = ?", (id,))
        connection.execute("UPDATE ssesync_meta SET value = max(value, ?) WHERE name = 'base'", (tail,))


def page_of(
    connection: sqlite3.Connection,
    limits: Limits,
    epoch: str,
    after: int,
    channels: Iterable[str],
    patterns: Iterable[str],
    limit: int,
    now: float,
) -> Page:
    """See :class:`ssesync.channels.log.Log`.

    :param connection: a connection in a transaction.
    :param limits: how much the log keeps.
    :param now: the time.
    """
    current, head = head_of(connection)
    patterns = tuple(patterns)
    found, closed, gone = _find(connection, channels, patterns, after)
    leapt = meta(connection, "lost") < after <= meta(connection, "leapt")
    if epoch != current or after > head or leapt:
        return Page([], True, "unknown", current, head, closed)
    lost = Page([], True, "trimmed", current, head, closed)
    if any(channel.trimmed > after for channel in found.values()):
        return lost
    if (gone or patterns) and meta(connection, "base") > after:
        return lost
    messages = []
    for name, channel in found.items():
        rows = connection.execute(
            "SELECT seq, at, body FROM ssesync_event WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?",
            (channel.id, after, limit + 1),
        ).fetchall()
        if rows and not channel.run and limits.max_age is not None and rows[0][1] < now - limits.max_age:
            return lost
        messages.append([Message.make(current, seq, name, body, seq == channel.closed) for seq, _, body in rows])
    return merged(heapq.merge(*messages, key=lambda message: message.seq), limit, current, head, closed)


class _Found(NamedTuple):
    """A channel that is read."""

    id: int
    trimmed: int
    closed: int
    run: int
    start: int


_FOUND = "id, trimmed, closed, run, start FROM ssesync_channel"


def _find(
    connection: sqlite3.Connection, names: Iterable[str], patterns: Collection[str], after: int
) -> tuple[dict[str, _Found], dict[str, int], bool]:
    """Find channels.

    :param after: of those that a pattern fits, only those that have later events.
    :return: the channels by name; of those that were named, the ones that are closed; and whether one was not found.
    """
    found: dict[str, _Found] = {}
    closed: dict[str, int] = {}
    gone = False
    for name in names:
        row = connection.execute(f"SELECT {_FOUND} WHERE name = ?", (name,)).fetchone()
        if row is None:
            gone = True
            continue
        found[name] = channel = _Found(*row)
        if channel.closed:
            closed[name] = channel.closed
    if patterns:
        fits = compiled(*patterns).fullmatch
        for run in (0, 1):  # each has an index of its own
            rows = connection.execute(f"SELECT name, {_FOUND} WHERE run = {run} AND tail > ?", (after,))
            found.update((name, _Found(*row)) for name, *row in rows if fits(name))
    return found, closed, gone


def start_of(
    connection: sqlite3.Connection,
    limits: Limits,
    channels: Iterable[str],
    patterns: Iterable[str],
    last: int | None,
    now: float,
) -> Start:
    """See :class:`ssesync.channels.log.Log`.

    :param connection: a connection in a transaction.
    :param limits: how much the log keeps.
    :param now: the time.
    """
    epoch, head = head_of(connection)
    if last == 0:
        return Start(epoch, head, _find(connection, channels, (), 0)[1])
    patterns = tuple(patterns)
    found, closed, gone = _find(connection, channels, patterns, -1)
    begin = meta(connection, "base") if gone or patterns else 0
    newest: list[int] = []
    for channel in found.values():
        begin = max(begin, channel.trimmed, channel.start)
        if not channel.run:
            begin = max(begin, _aged(connection, limits, channel.id, now))
        if last is not None:
            query = "SELECT seq FROM ssesync_event WHERE channel = ? ORDER BY seq DESC LIMIT ?"
            newest += (seq for (seq,) in connection.execute(query, (channel.id, last + 1)))
    if last is not None and len(newest) > last:
        begin = max(begin, heapq.nlargest(last + 1, newest)[last])
    return Start(epoch, begin, closed)


def _aged(connection: sqlite3.Connection, limits: Limits, channel: int, now: float) -> int:
    """The number of a channel's last event that is too old; ``0`` if none is."""
    oldest = next(_oldest(connection, channel), None)
    if limits.max_age is None or oldest is None or oldest[1] >= now - limits.max_age:
        return 0
    query = "SELECT max(seq) FROM ssesync_event WHERE channel = ? AND at < ?"
    row: tuple[int] = connection.execute(query, (channel, now - limits.max_age)).fetchone()
    return row[0]


def message_of(connection: sqlite3.Connection, epoch: str, seq: int) -> Message | None:
    """Find an event.

    :param connection: a connection in a transaction.
    :param epoch: of its id.
    :param seq: its number.
    :return: its message; ``None`` if it is not there.
    """
    query = (
        "SELECT name, body, seq = closed FROM ssesync_event JOIN ssesync_channel ON ssesync_channel.id = channel "
        "WHERE seq = ?"
    )
    row = connection.execute(query, (seq,)).fetchone() if head_of(connection)[0] == epoch else None
    return None if row is None else Message.make(epoch, seq, row[0], row[1], bool(row[2]))


def has_channel(connection: sqlite3.Connection, limits: Limits, name: str, now: float) -> bool:
    """See :class:`ssesync.channels.backend.Backend`.

    :param connection: a connection in a transaction.
    :param limits: how much the log keeps.
    :param now: the time.
    """
    row = connection.execute("SELECT run, at FROM ssesync_channel WHERE name = ?", (name,)).fetchone()
    if row is None:
        return False
    if row[0]:
        return find_run(connection, name, now) is not None
    return limits.max_age is None or bool(row[1] >= now - limits.max_age)


def rows_after(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str, bytes, int]]:
    """Read the events of all channels after a position.

    :param connection: a connection in a transaction.
    :param after: the position's number.
    :param limit: how many events at most.
    :return: number, channel and body of each, and whether it is final.
    """
    return connection.execute(
        "SELECT seq, name, body, seq = closed FROM ssesync_event JOIN ssesync_channel ON ssesync_channel.id = channel "
        "WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    ).fetchall()


def trimmed_after(connection: sqlite3.Connection, after: int) -> list[str] | None:
    """Find the channels of which the log has dropped events after a position.

    :param connection: a connection in a transaction.
    :param after: the position's number.
    :return: the channels; ``None`` if they are not known.
    """
    if meta(connection, "base") > after:
        return None
    names = []
    # Each kind has an index of its own. A run that has no event yet may have taken the place of one that had.
    for kind in ("run = 0 AND tail > ?", "run = 1 AND (tail > ? OR tail = 0)"):
        query = f"SELECT name FROM ssesync_channel WHERE {kind} AND trimmed > ?"
        names += [name for (name,) in connection.execute(query, (after, after))]
    return names
