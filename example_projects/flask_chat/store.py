"""The chat's data: rooms, messages, and the people in each room, in an SQLite file that all workers open.

Events are not stored here. The broker has a log of its own, for clients that reconnect after seconds or hours; this
file is the permanent state, which a page loads first.
"""

import os
import secrets
import sqlite3
import time
from contextlib import closing, contextmanager

import psutil

TABLES = """
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rooms (slug TEXT PRIMARY KEY, title TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, room TEXT NOT NULL,
    person TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL, time REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_of_room ON messages (room, number);
CREATE TABLE IF NOT EXISTS streams (
    id TEXT PRIMARY KEY, room TEXT NOT NULL, person TEXT NOT NULL, name TEXT NOT NULL, process TEXT NOT NULL
);
"""
ROOMS = {"lobby": "Lobby", "garden": "Garden", "workshop": "Workshop"}


class Store:
    def __init__(self, path):
        self._path = path
        with closing(self._open()) as database:
            _use_wal(database)
            database.executescript(TABLES)
        with self._transaction() as database:
            database.executemany("INSERT OR IGNORE INTO rooms VALUES (?, ?)", ROOMS.items())
            database.execute("INSERT OR IGNORE INTO keys VALUES ('session', ?)", [secrets.token_hex(32)])

    def secret(self):
        """The key of the sessions' signatures: the same for all workers, and after a restart."""
        with self._transaction() as database:
            return database.execute("SELECT value FROM keys WHERE name = 'session'").fetchone()["value"]

    def rooms(self):
        with self._transaction() as database:
            return [dict(row) for row in database.execute("SELECT slug, title FROM rooms ORDER BY rowid")]

    def has_room(self, slug):
        with self._transaction() as database:
            return database.execute("SELECT 1 FROM rooms WHERE slug = ?", [slug]).fetchone() is not None

    def add_room(self, slug, title):
        """Whether there was none of the name."""
        with self._transaction() as database:
            return database.execute("INSERT OR IGNORE INTO rooms VALUES (?, ?)", [slug, title]).rowcount > 0

    def add_message(self, room, person, name, text, id):
        """Store a message, and return it. A message that is sent again, with the same id, is stored once."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO messages (id, room, person, name, text, time) VALUES (?, ?, ?, ?, ?, ?)",
                [id, room, person, name, text, time.time()],
            )
            row = database.execute(
                "SELECT id, person, name, text, time FROM messages WHERE id = ? AND room = ? AND person = ?",
                [id, room, person],
            ).fetchone()
            return dict(row) if row else None

    def messages(self, room, limit):
        """The last messages, the oldest first."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT id, person, name, text, time FROM messages WHERE room = ? ORDER BY number DESC LIMIT ?",
                [room, limit],
            ).fetchall()
            return [dict(row) for row in reversed(rows)]

    def arrive(self, stream, room, person, name):
        with self._transaction() as database:
            database.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?)", [stream, room, person, name, this_process()])

    def leave(self, stream):
        with self._transaction() as database:
            database.execute("DELETE FROM streams WHERE id = ?", [stream])

    def people(self, room):
        """The people with the room open, each once. Deletes the streams of workers that were killed."""
        with self._transaction() as database:
            rows = database.execute("SELECT * FROM streams WHERE room = ? ORDER BY rowid", [room]).fetchall()
            runs = {process: is_running(process) for process in {row["process"] for row in rows}}
            gone = [[process] for process, alive in runs.items() if not alive]
            if gone:
                database.executemany("DELETE FROM streams WHERE process = ?", gone)
            names = {row["person"]: row["name"] for row in rows if runs[row["process"]]}
            return [{"person": person, "name": name} for person, name in names.items()]

    def _open(self):
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        database.row_factory = sqlite3.Row
        return database

    @contextmanager
    def _transaction(self):
        with closing(self._open()) as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")


def _use_wal(database):
    """Switch to write-ahead logging. SQLite does not wait where another worker does so now."""
    deadline = time.monotonic() + 10
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:  # noqa: PERF203
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def this_process():
    # A process of the same number may come later, but not one that was started at the same time.
    return f"{os.getpid()} {psutil.Process().create_time()}"


def is_running(process):
    pid, started = process.split()
    try:
        return psutil.Process(int(pid)).create_time() == float(started)
    except psutil.Error:
        return False
