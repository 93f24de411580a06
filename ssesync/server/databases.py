"""What a producer's exception says of a database that has too few connections, or too many that write.

The server's threads also bound how much of an application used its database at a time. Detached producers are many
more. Where one of them fails as there is no connection for it, a warning names the ``max_producers`` that refuses
clients in place of that. SQLite has no limit of connections, but lets one write at a time: its warning names what makes
the others wait for less, or for longer.
"""

from __future__ import annotations

import logging
import re

from ..text import escape

__all__ = ["advice_on", "warn_of_database"]

logger = logging.getLogger("ssesync")

# SQLAlchemy's, of a pool: nobody has given a connection back in time.
_POOL = re.compile(r"Pool limit of size (\d+) overflow (\d+) reached")
# PostgreSQL's, MySQL's and psycopg's pool's.
_SERVER = re.compile(
    r"too many clients already|too many connections|remaining connection slots|couldn't get a connection after", re.I
)
# SQLite's: others have written for longer than this connection waits.
_LOCKED = re.compile(r"database (?:table |schema )?is locked")
_NONE_LEFT = (
    "got no connection to its database, as others have all of them: set {}, so that clients are refused before that, "
    "or allow more connections"
)
_NO_TURN = (
    "found its SQLite database locked, as others were writing to it: use the journal mode WAL and short transactions, "
    "let connections wait longer for the lock (the timeout of sqlite3), or set max_producers to fewer"
)
# Exceptions behind one that are looked at.
_DEPTH = 10

_warned: set[str] = set()


def advice_on(error: BaseException) -> str | None:
    """Find whether an exception, or one behind it, means that a producer had no use of its database.

    :return: what has happened, and what to do; ``None``: it means something else.
    """
    found: BaseException | None = error
    for _ in range(_DEPTH):
        if found is None:
            break
        text = str(found)
        if (pool := _POOL.search(text)) is not None:
            most = int(pool[1]) + int(pool[2])
            return _NONE_LEFT.format(f"max_producers={most}, which is what SQLAlchemy's pool has")
        if _SERVER.search(text):
            return _NONE_LEFT.format("max_producers to what the database allows, divided by the processes that serve")
        if _LOCKED.search(text):
            return _NO_TURN
        found = found.__cause__ or found.__context__
    return None


def warn_of_database(name: str, error: BaseException) -> None:
    """Warn, once in a process for each cause, if a producer failed since others were using its database.

    :param name: its stream's.
    :param error: what it raised.
    """
    advice = advice_on(error)
    if advice is not None and advice not in _warned:
        _warned.add(advice)
        logger.warning("the producer of the event stream %s %s", escape(name), advice)
