"""The statements of the SQLite broker for runs, for a transaction that the caller begins and commits."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from ....errors import ChannelError, excerpt
from ...entry import Outcome
from ...runs.record import RunRecord, RunState

__all__ = [
    "Owner",
    "abandoned",
    "add_owner",
    "add_run",
    "end_run",
    "find_run",
    "meta",
    "own_run",
    "owners",
    "remove_owner",
    "renew_owner",
    "set_file",
]

# Expired runs that are removed when one is added.
_SWEEP = 20
# Runs that abandoned() finds at most.
_MOST = 200
_RECORD = ", ".join(RunRecord._fields)


class Owner(NamedTuple):
    """An owner of runs."""

    owner: str
    number: int
    """The byte that it locks."""
    file: str
    """The file in which it does; ``""``: none."""
    until: float
    """When its lease is over, on the monotonic clock, which all processes of a machine share."""
    lease: float
    """Seconds."""


def meta(connection: sqlite3.Connection, name: str) -> int:
    """Read one of the log's numbers.

    :param connection: a connection in a transaction.
    :param name: the name.
    :return: the number.
    """
    row: tuple[int] = connection.execute("SELECT value FROM ssesync_meta WHERE name = ?", (name,)).fetchone()
    return row[0]


def find_run(connection: sqlite3.Connection, name: str, now: float) -> RunRecord | None:
    """Find a run.

    :param connection: a connection in a transaction.
    :param name: its name.
    :param now: the time.
    :return: the run; ``None`` if there is none, or it has expired.
    """
    query = f"SELECT {_RECORD} FROM ssesync_run WHERE name = ? AND (ended = 0 OR expires >= ?)"
    row = connection.execute(query, (name, now)).fetchone()
    return None if row is None else _record(row)


def add_run(
    connection: sqlite3.Connection, record: RunRecord, most: int | None, restart: bool, now: float
) -> tuple[bool, RunRecord | None]:
    """See :class:`ssesync.channels.backend.Backend`.

    :param connection: a connection in a transaction that writes.
    :param now: the time.
    """
    query = "SELECT name FROM ssesync_run WHERE ended > 0 AND expires < ? ORDER BY expires LIMIT ?"
    for (name,) in connection.execute(query, (now, _SWEEP)).fetchall():
        _remove_run(connection, name)
    present = find_run(connection, record.name, now)
    if present is not None and not (restart and present.state.ended and present.subject == record.subject):
        return False, present
    row = connection.execute("SELECT run FROM ssesync_channel WHERE name = ?", (record.name,)).fetchone()
    if row == (0,):
        raise ChannelError(f"{excerpt(record.name)} is a channel already, and so can't be a run")
    if most is not None:
        query = "SELECT count(*) FROM ssesync_run WHERE ended = 0 AND subject = ?"
        (active,) = connection.execute(query, (record.subject,)).fetchone()
        if active >= most:
            return False, None
    if row is not None:
        _remove_run(connection, record.name)
    values = (*record._replace(state=record.state.value), 0.0)  # type: ignore[arg-type]
    connection.execute(f"INSERT INTO ssesync_run ({_RECORD}, expires) VALUES ({', '.join('?' * len(values))})", values)
    (head,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ssesync_event'").fetchone()
    trimmed = max(meta(connection, "base"), meta(connection, "run_base"))
    connection.execute(
        "INSERT INTO ssesync_channel (name, events, bytes, trimmed, tail, at, run, start) "
        "VALUES (?, 0, 0, ?, 0, ?, 1, ?)",
        (record.name, trimmed, now, head),
    )
    return True, record


def _remove_run(connection: sqlite3.Connection, name: str) -> None:
    """Remove a run with its channel.

    The channel's last number is noted apart from that of other channels: else each client that comes back with an older
    id for a channel that does not exist would get a reset whenever runs have expired.
    """
    query = "SELECT id, max(tail, start) FROM ssesync_channel WHERE name = ?"
    id, tail = connection.execute(query, (name,)).fetchone()
    connection.execute("UPDATE ssesync_channel SET run = 0 WHERE id = ?", (id,))  # as a run's it can't be removed
    connection.execute("DELETE FROM ssesync_event WHERE channel = ?", (id,))
    connection.execute("DELETE FROM ssesync_channel WHERE id = ?", (id,))
    connection.execute("UPDATE ssesync_meta SET value = max(value, ?) WHERE name = 'run_base'", (tail,))
    connection.execute("DELETE FROM ssesync_run WHERE name = ?", (name,))


def own_run(connection: sqlite3.Connection, name: str, owner: str) -> bool:
    """Set the owner of a queued run.

    :param connection: a connection in a transaction that writes.
    :param name: the run's name.
    :param owner: the owner.
    :return: whether it was queued.
    """
    statement = "UPDATE ssesync_run SET owner = ?, state = ? WHERE name = ? AND state = ?"
    states = RunState.RUNNING.value, RunState.QUEUED.value
    return connection.execute(statement, (owner, states[0], name, states[1])).rowcount == 1


def end_run(connection: sqlite3.Connection, name: str, outcome: Outcome, now: float) -> None:
    """End a run.

    :param connection: a connection in a transaction that writes.
    :param name: the name of a run that has not ended.
    :param outcome: how it ends.
    :param now: the time.
    """
    connection.execute(
        "UPDATE ssesync_run SET state = ?, reason = ?, ended = ?, expires = ? + retain WHERE name = ?",
        (RunState(outcome.state).value, outcome.reason, now, now, name),
    )


# Owners.


def renew_owner(connection: sqlite3.Connection, owner: str, lease: float, now: float) -> int:
    """Renew the lease of an owner.

    :param connection: a connection in a transaction that writes.
    :param owner: the owner.
    :param lease: for how many seconds.
    :param now: the time on the monotonic clock.
    :return: its number; ``0`` if there is no such owner.
    """
    connection.execute("UPDATE ssesync_owner SET until = ?, lease = ? WHERE owner = ?", (now + lease, lease, owner))
    row = connection.execute("SELECT number FROM ssesync_owner WHERE owner = ?", (owner,)).fetchone()
    return 0 if row is None else int(row[0])


def add_owner(connection: sqlite3.Connection, owner: str, lease: float, now: float) -> int:
    """Add an owner.

    :param connection: a connection in a transaction that writes.
    :param owner: the owner.
    :param lease: for how many seconds.
    :param now: the time on the monotonic clock.
    :return: its number.
    """
    statement = "INSERT INTO ssesync_owner (owner, file, until, lease) VALUES (?, '', ?, ?)"
    number = connection.execute(statement, (owner, now + lease, lease)).lastrowid
    assert number is not None
    return number


def set_file(connection: sqlite3.Connection, number: int, file: str) -> None:
    """Note the file in which an owner has locked its byte.

    :param connection: a connection in a transaction that writes.
    :param number: the owner's number.
    :param file: the file; ``""``: it has not.
    """
    connection.execute("UPDATE ssesync_owner SET file = ? WHERE number = ?", (file, number))


def owners(connection: sqlite3.Connection) -> list[Owner]:
    """Read the owners.

    :param connection: a connection in a transaction.
    :return: all of them.
    """
    query = f"SELECT {', '.join(Owner._fields)} FROM ssesync_owner"
    return [Owner(*row) for row in connection.execute(query)]


def remove_owner(connection: sqlite3.Connection, owner: Owner) -> None:
    """Remove an owner, unless it has renewed its lease since it was read.

    :param connection: a connection in a transaction that writes.
    :param owner: the owner.
    """
    connection.execute("DELETE FROM ssesync_owner WHERE number = ? AND until = ?", (owner.number, owner.until))


def abandoned(connection: sqlite3.Connection, now: float) -> list[RunRecord]:
    """Find the runs without an owner, and the queued ones that no process has begun in time.

    :param connection: a connection in a transaction.
    :param now: the time.
    :return: some hundred of them at most.
    """
    query = (
        f"SELECT {_RECORD} FROM ssesync_run WHERE ended = 0 AND "
        "(owner <> '' AND owner NOT IN (SELECT owner FROM ssesync_owner) OR owner = '' AND deadline BETWEEN 1 AND ?) "
        "LIMIT ?"
    )
    return [_record(row) for row in connection.execute(query, (now, _MOST))]


def _record(row: tuple[Any, ...]) -> RunRecord:
    return RunRecord(*row)._replace(state=RunState(row[2]))
