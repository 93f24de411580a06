"""``max_streams_per_key`` where a keeper holds the streams: a worker asks it before it opens one.

It asks only for streams with that limit that it can move. The keeper counts the streams that it has and those that were
reserved lately. Each stream that is moved to it takes the place of a reservation. A keeper that does not answer in a
fraction of a second is not asked for some seconds: then the worker's own count decides alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .framing import Link, LinkTimeout
from .mover import connect_to

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["Reserving"]

# Seconds for the keeper's answer, a new connection included; seconds for which it is not asked if none came.
_ANSWER, _PAUSE = 0.25, 5.0
# How many threads may ask one keeper at a time. Further ones don't wait for them.
_MOST = 4


class Reserving:
    """A worker's side. Any thread.

    :param broker: the broker of the streams.
    :param path: of the keeper's socket.
    """

    def __init__(self, broker: Broker, path: str) -> None:
        self._broker = broker
        self._path = path
        # The right to ask, with a link that was used before.
        self._links: deque[Link | None] = deque([None] * _MOST)
        self._paused_until = 0.0

    def reserve(self, key: str, limit: int) -> bool:
        """See :class:`ssesync.detached.holder.Holder`."""
        if time.monotonic() < self._paused_until:
            return True
        try:
            link = self._links.pop()
        except IndexError:
            return True  # as many threads wait for an answer already
        try:
            link, allowed = self._ask(link, {"op": "reserve", "key": key, "limit": limit})
        except (OSError, ValueError):
            link, allowed = None, True
            self._paused_until = time.monotonic() + _PAUSE
        finally:
            self._links.append(link)
        return allowed

    def _ask(self, link: Link | None, request: Mapping[str, Any]) -> tuple[Link, bool]:
        """Send a request, and wait for its answer.

        :param link: one that was used before; ``None``: connect.
        :return: the link, for the next request, and whether the stream is allowed.
        :raises OSError: the keeper can't be reached, or does not answer in time.
        :raises ValueError: it can't be used.
        """
        if link is not None:
            try:
                return link, _answer(link, request)
            except LinkTimeout:
                link.close()
                raise
            except (OSError, ValueError):
                link.close()  # another process may be the keeper since the link was made
        link = connect_to(self._path, self._broker, _ANSWER)
        try:
            return link, _answer(link, request)
        except BaseException:
            link.close()
            raise


def _answer(link: Link, request: Mapping[str, Any]) -> bool:
    link.send(request)
    with link.receive(_ANSWER) as frame:
        return bool(frame.head.get("allowed", True))
