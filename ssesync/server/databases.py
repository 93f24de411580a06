"""What a producer's exception says of a database that has too few connections.

The server's threads also bound how much of an application used its database at a time. Detached producers are many
more. Where one of them fails as there is no connection for it, a warning names the ``max_producers`` that refuses
clients in place of that.
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
# Exceptions behind one that are looked at.
_DEPTH = 10

_warned: set[str] = set()


def advice_on(error: BaseException) -> str | None:
    """Find whether an exception, or one behind it, means that there are too few connections.

    :return: what ``max_producers`` should be; ``None``: it means something else.
    """
    found: BaseException | None = error
    for _ in range(_DEPTH):
        if found is None:
            break
        text = str(found)
        if (pool := _POOL.search(text)) is not None:
            most = int(pool[1]) + int(pool[2])
            return f"max_producers={most}, which is what SQLAlchemy's pool has"
        if _SERVER.search(text):
            return "max_producers to what the database allows, divided by the processes that serve"
        found = found.__cause__ or found.__context__
    return None


def warn_of_database(name: str, error: BaseException) -> None:
    """Warn, once in a process, if a producer failed since there was no connection to a database for it.

    :param name: its stream's.
    :param error: what it raised.
    """
    advice = advice_on(error)
    if advice is not None and advice not in _warned:
        _warned.add(advice)
        logger.warning(
            "the producer of the event stream %s got no connection to its database, as others have all of them: set "
            "%s, so that clients are refused before that, or allow more connections",
            escape(name),
            escape(advice),
        )
