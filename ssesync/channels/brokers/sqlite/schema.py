"""The tables of the SQLite broker: made, and upgraded in place while processes of the version before use the file.

A process of the version before inserts, trims and removes as if no channel could be closed and none belonged to a run.
Triggers keep it from breaking these; for all other channels it continues to work. Its statements are known by the
column ``number``, which they do not set: so for this version's own events a trigger only compares a column.
"""

from __future__ import annotations

import secrets
import sqlite3

__all__ = ["is_current", "make_tables"]

_VERSION = 2

_TABLES = """
CREATE TABLE IF NOT EXISTS ssesync_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ssesync_channel (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    trimmed INTEGER NOT NULL, tail INTEGER NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS ssesync_event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ssesync_event_channel ON ssesync_event (channel, seq);
CREATE TABLE IF NOT EXISTS ssesync_presence (
    channel TEXT NOT NULL, process TEXT NOT NULL, subscribers INTEGER NOT NULL, seen REAL NOT NULL,
    PRIMARY KEY (channel, process)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ssesync_claim (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""

# Of a channel: "closed" is the seq of its final event, "run" whether it is a run's, and "start" the head when that was
# added. "number" is the place of a run's event in the run, and 0 for others. The version before leaves it NULL.
_COLUMNS = (
    ("ssesync_channel", "closed", "INTEGER NOT NULL DEFAULT 0"),
    ("ssesync_channel", "run", "INTEGER NOT NULL DEFAULT 0"),
    ("ssesync_channel", "start", "INTEGER NOT NULL DEFAULT 0"),
    ("ssesync_event", "number", "INTEGER"),
)

# An owner's number is the byte that it locks, see owners.py. It is never used again.
# The limits apply to the channels of one index: else those of runs, which may be thousands and older, would be passed
# over with each event.
# "readonly": the version before takes that for a file that it can't write to now. With other words it would advise to
# delete the file.
_RUNS = """
CREATE TABLE IF NOT EXISTS ssesync_owner (
    number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL UNIQUE, file TEXT NOT NULL, until REAL NOT NULL,
    lease REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS ssesync_run (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, subject TEXT NOT NULL, fingerprint TEXT NOT NULL,
    began REAL NOT NULL, retain REAL NOT NULL, deadline REAL NOT NULL, ended REAL NOT NULL, reason TEXT NOT NULL,
    end_type TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ssesync_run_owner ON ssesync_run (owner) WHERE ended = 0;
CREATE INDEX IF NOT EXISTS ssesync_run_subject ON ssesync_run (subject) WHERE ended = 0;
CREATE INDEX IF NOT EXISTS ssesync_run_expires ON ssesync_run (expires) WHERE ended > 0;
DROP INDEX IF EXISTS ssesync_channel_tail;
CREATE INDEX IF NOT EXISTS ssesync_channel_limited ON ssesync_channel (tail) WHERE run = 0;
CREATE INDEX IF NOT EXISTS ssesync_channel_run ON ssesync_channel (tail) WHERE run = 1;
CREATE TRIGGER IF NOT EXISTS ssesync_no_event BEFORE INSERT ON ssesync_event WHEN NEW.number IS NULL
BEGIN
    SELECT RAISE(ABORT, 'the channel is closed, readonly') FROM ssesync_channel
    WHERE id = NEW.channel AND (closed > 0 OR run = 1);
END;
CREATE TRIGGER IF NOT EXISTS ssesync_keep_event BEFORE DELETE ON ssesync_event WHEN OLD.number > 0
BEGIN
    SELECT RAISE(IGNORE) FROM ssesync_channel WHERE id = OLD.channel AND run = 1;
END;
CREATE TRIGGER IF NOT EXISTS ssesync_keep_channel BEFORE DELETE ON ssesync_channel WHEN OLD.run = 1
BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER IF NOT EXISTS ssesync_keep_base BEFORE UPDATE ON ssesync_meta
WHEN OLD.name = 'base' AND EXISTS (SELECT 1 FROM ssesync_channel WHERE run = 1 AND tail = NEW.value)
BEGIN
    SELECT RAISE(IGNORE);
END;
"""
# After a crash of the machine the last transactions may be lost, and their numbers must not be used again: the next
# number is higher by so much.
_LEAP = 10**9


def is_current(connection: sqlite3.Connection, boot: str | None) -> bool:
    """Whether there is nothing to be made or upgraded.

    :param connection: a connection.
    :param boot: the id of the machine's start.
    :return: whether all tables are of this version or a later one, and were used since that start.
    """
    try:
        rows = dict(connection.execute("SELECT name, value FROM ssesync_meta WHERE name IN ('boot', 'version')"))
    except sqlite3.OperationalError:
        return False
    return "boot" in rows and rows["boot"] == boot and rows.get("version", 1) >= _VERSION


def make_tables(connection: sqlite3.Connection, boot: str | None) -> None:
    """Make the tables, or upgrade them.

    :param connection: a connection in a transaction that writes.
    :param boot: the id of the machine's start.
    """
    _execute(connection, _TABLES)
    for table, column, kind in _COLUMNS:
        if not connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)).fetchone():
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    _execute(connection, _RUNS)
    before = connection.execute("SELECT value FROM ssesync_meta WHERE name = 'boot'").fetchone()
    put = "INSERT OR REPLACE INTO ssesync_meta VALUES (?, ?)"
    if before is None:
        connection.executemany(put, [("epoch", secrets.token_hex(4)), ("base", 0), ("lost", 0), ("leapt", 0)])
        connection.execute("INSERT INTO sqlite_sequence VALUES ('ssesync_event', 0)")
    elif before != (boot,):
        (head,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ssesync_event'").fetchone()
        connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'ssesync_event'", (_LEAP,))
        connection.executemany(put, [("lost", head), ("leapt", head + _LEAP)])
    connection.execute("INSERT OR IGNORE INTO ssesync_meta VALUES ('run_base', 0)")
    connection.executemany(put, [("boot", boot), ("version", _VERSION)])


def _execute(connection: sqlite3.Connection, script: str) -> None:
    """Execute the statements of a script in the transaction, which ``executescript`` would commit."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
