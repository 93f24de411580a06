"""Advice on an exception of a producer whose database has too few connections, or too many that write.

The number of the server's threads also bounds an application's use of its database. There may be many more detached
producers. If one of them fails as it gets no connection, a warning names the ``max_producers`` with which clients are
refused before. SQLite has no limit of connections, but only one can write at a time: its warning names the options for
shorter or longer waits.
"""

from __future__ import annotations

import logging
import re

from ..text import escape

__all__ = ["advice_on", "warn_of_database"]

logger = logging.getLogger("ssesync")

# SQLAlchemy's: no connection was returned to the pool in time.
_POOL = re.compile(r"Pool limit of size (\d+) overflow (\d+) reached")
# PostgreSQL's, MySQL's and psycopg's pool's.
_SERVER = re.compile(
    r"too many clients already|too many connections|remaining connection slots|couldn't get a connection after", re.I
)
# SQLite's: other connections have written for longer than this one waits.
_LOCKED = re.compile(r"database (?:table |schema )?is locked")
_NONE_LEFT = (
    "got no connection to its database, as all are in use: set {}, so that clients are refused before that, "
    "or allow more connections"
)
_NO_TURN = (
    "found its SQLite database locked by other connections that write: use the journal mode WAL and short "
    "transactions, let connections wait longer for the lock (the timeout of sqlite3), or set max_producers to fewer"
)
# The most causes of an exception that are examined.
_DEPTH = 10

_warned: set[str] = set()


def advice_on(error: BaseException) -> str | None:
    """Check whether an exception, or a cause of it, means that a producer could not use its database.

    :param error: the exception.
    :return: the event and the remedy, for a log line; ``None`` if it has another meaning.
    """
    found: BaseException | None = error
    for _ in range(_DEPTH):
        if found is None:
            break
        text = str(found)
        if (pool := _POOL.search(text)) is not None:
            most = int(pool[1]) + int(pool[2])
            return _NONE_LEFT.format(f"max_producers={most}, the size of SQLAlchemy's pool")
        if _SERVER.search(text):
            return _NONE_LEFT.format(
                "max_producers to the database's limit of connections, divided by the processes that serve"
            )
        if _LOCKED.search(text):
            return _NO_TURN
        found = found.__cause__ or found.__context__
    return None


def warn_of_database(name: str, error: BaseException) -> None:
    """Log a warning, once in a process for each cause, if a producer has failed because its database was in use.

    :param name: its stream's.
    :param error: its exception.
    """
    advice = advice_on(error)
    if advice is not None and advice not in _warned:
        _warned.add(advice)
        logger.warning("the producer of the event stream %s %s", escape(name), escape(advice))
