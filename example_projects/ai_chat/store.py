"""The chats, in an SQLite file that all workers open: questions, and the answers that have ended."""

import sqlite3
from contextlib import closing, contextmanager

TABLE = """
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT, chat TEXT NOT NULL, id TEXT NOT NULL, question TEXT NOT NULL,
    answer TEXT, complete INTEGER NOT NULL DEFAULT 0, UNIQUE (chat, id)
)
"""


class Store:
    def __init__(self, path):
        self._path = path
        with self._transaction() as database:
            database.execute(TABLE)

    def ask(self, chat, id, question, again=False):
        """Add a question and return its number. A client may send one twice.

        To be answered again, a question is added anew, in place of itself and all after it.
        """
        find = "SELECT number FROM turns WHERE chat = ? AND id = ?"
        with self._transaction() as database:
            if again:
                database.execute(f"DELETE FROM turns WHERE chat = ? AND number >= ({find})", [chat, chat, id])
            add = "INSERT OR IGNORE INTO turns (chat, id, question) VALUES (?, ?, ?)"
            database.execute(add, [chat, id, question])
            return database.execute(find, [chat, id]).fetchone()[0]

    def finish(self, number, answer, complete):
        with self._transaction() as database:
            database.execute("UPDATE turns SET answer = ?, complete = ? WHERE number = ?", [answer, complete, number])

    def turns(self, chat):
        """The chat's questions, each with its answer, which is ``None`` before it has ended."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT number, question, answer, complete FROM turns WHERE chat = ? ORDER BY number", [chat]
            )
            return [dict(row) for row in rows]

    @contextmanager
    def _transaction(self):
        with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
