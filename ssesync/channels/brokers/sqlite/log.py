"""The statements of the SQLite broker, for a transaction that the caller begins and commits."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator

from ...log import Page, merged
from ...message import Message, compiled
from ...options import Limits

__all__ = ["append", "head_of", "page_of", "rows_after", "trimmed_after"]

# Events, and channels, that one publish removes at most.
_SWEEP = 50


def head_of(connection: sqlite3.Connection) -> tuple[str, int]:
    """Read the log's head.

    :param connection: a connection in a transaction.
    :return: the epoch, and the number of the last event.
    """
    query = "SELECT (SELECT value FROM ssesync_meta WHERE name = 'epoch'), seq FROM sqlite_sequence WHERE name = ?"
    row: tuple[str, int] = connection.execute(query, ("ssesync_event",)).fetchone()
    return row


def append(connection: sqlite3.Connection, limits: Limits, channel: str, body: bytes, now: float) -> int:
    """Append an event, and remove events and channels beyond the limits.

    :param connection: a connection in a transaction that writes.
    :param limits: how much the log keeps.
    :param channel: the event's channel.
    :param body: the event, encoded without an id.
    :param now: the time.
    :return: the event's number.
    """
    query = "SELECT id, events, bytes, trimmed FROM ssesync_channel WHERE name = ?"
    row = connection.execute(query, (channel,)).fetchone()
    if row is None:
        base = _meta(connection, "base")
        id = connection.execute(
            "INSERT INTO ssesync_channel (name, events, bytes, trimmed, tail, at) VALUES (?, 0, 0, ?, 0, 0)",
            (channel, base),
        ).lastrowid
        events, size, trimmed = 0, 0, base
    else:
        id, events, size, trimmed = row
    seq = connection.execute(
        "INSERT INTO ssesync_event (channel, at, body) VALUES (?, ?, ?)", (id, now, body)
    ).lastrowid
    assert id is not None
    assert seq is not None
    events += 1
    size += len(body)
    for old, at, length in _oldest(connection, id):
        aged = limits.max_age is not None and at < now - limits.max_age
        if old == seq or not (aged or events > limits.max_events or size > limits.max_bytes):
            break
        events, size, trimmed = events - 1, size - length, old
    connection.execute("DELETE FROM ssesync_event WHERE channel = ? AND seq <= ?", (id, trimmed))
    connection.execute(
        "UPDATE ssesync_channel SET events = ?, bytes = ?, trimmed = ?, tail = ?, at = ? WHERE id = ?",
        (events, size, trimmed, seq, now, id),
    )
    _remove_channels(connection, limits, now, count=row is None)
    return seq


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
        (channels,) = connection.execute("SELECT count(*) FROM ssesync_channel").fetchone()
        too_many = max(0, channels - limits.max_channels)
    cutoff = float("-inf") if limits.max_age is None else now - limits.max_age
    oldest = connection.execute(
        "SELECT id, tail, at FROM ssesync_channel ORDER BY tail LIMIT ?", (min(max(too_many, 1), _SWEEP),)
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
    leapt = _meta(connection, "lost") < after <= _meta(connection, "leapt")
    if epoch != current or after > head or leapt:
        return Page([], True, "unknown", current, head)
    found: dict[str, tuple[int, int]] = {}
    gone = False
    for channel in channels:
        row = connection.execute("SELECT id, trimmed FROM ssesync_channel WHERE name = ?", (channel,)).fetchone()
        if row is None:
            gone = True
        else:
            found[channel] = row
    patterns = tuple(patterns)
    if patterns:
        fits = compiled(*patterns).fullmatch
        query = "SELECT name, id, trimmed FROM ssesync_channel WHERE tail > ?"
        found.update((name, (id, trimmed)) for name, id, trimmed in connection.execute(query, (after,)) if fits(name))
    if any(trimmed > after for _, trimmed in found.values()):
        return Page([], True, "trimmed", current, head)
    if (gone or patterns) and _meta(connection, "base") > after:
        return Page([], True, "trimmed", current, head)
    messages = []
    for name, (id, _) in found.items():
        rows = connection.execute(
            "SELECT seq, at, body FROM ssesync_event WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?",
            (id, after, limit + 1),
        ).fetchall()
        if rows and limits.max_age is not None and rows[0][1] < now - limits.max_age:
            return Page([], True, "trimmed", current, head)
        messages.append([Message.make(current, seq, name, body) for seq, _, body in rows])
    return merged(heapq.merge(*messages, key=lambda message: message.seq), limit, current, head)


def rows_after(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str, bytes]]:
    """Read the events of all channels after a position.

    :param connection: a connection in a transaction.
    :param after: the position's number.
    :param limit: how many events at most.
    :return: number, channel and body of each.
    """
    return connection.execute(
        "SELECT seq, name, body FROM ssesync_event JOIN ssesync_channel ON ssesync_channel.id = channel "
        "WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    ).fetchall()


def trimmed_after(connection: sqlite3.Connection, after: int) -> list[str] | None:
    """Find the channels of which the log has dropped events after a position.

    :param connection: a connection in a transaction.
    :param after: the position's number.
    :return: the channels; ``None`` if they are not known.
    """
    if _meta(connection, "base") > after:
        return None
    rows = connection.execute("SELECT name FROM ssesync_channel WHERE tail > ? AND trimmed > ?", (after, after))
    return [name for (name,) in rows]


def _meta(connection: sqlite3.Connection, name: str) -> int:
    row: tuple[int] = connection.execute("SELECT value FROM ssesync_meta WHERE name = ?", (name,)).fetchone()
    return row[0]
