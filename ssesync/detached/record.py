"""The account of a detached stream: the process's count of streams, and ``on_close``."""

from __future__ import annotations

import contextvars
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import CloseReason
from ..locks import foreign
from ..server.registry import streams
from ..server.stats import StreamStats
from ..text import escape
from .connection import Connection

if TYPE_CHECKING:
    from ..server.stream import EventStream

__all__ = ["DetachedRecord"]

logger = logging.getLogger("ssesync")


class DetachedRecord:
    """What the process does for a detached stream beside sending: it counts it, and calls its ``on_close``."""

    __slots__ = ("_context", "_key", "_on_close", "_stream")

    def __init__(
        self,
        stream: EventStream,
        key: str,
        on_close: Callable[[CloseReason, StreamStats], object] | None,
        context: contextvars.Context,
    ) -> None:
        self._stream = weakref.ref(stream)
        self._key = key
        self._on_close = on_close
        # A context refers to the request and all that the request refers to.
        self._context = None if on_close is None else context

    def began(self, connection: Connection) -> None:
        """See :class:`ssesync.detached.connection.Record`."""
        stream = self._stream()
        assert stream is not None
        streams.detached(stream, self._key, connection)

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> None:
        """See :class:`ssesync.detached.connection.Record`."""
        streams.leave(connection, self._key, reason, connection.run_in_executor)
        stream, on_close, context = self._stream(), self._on_close, self._context
        if stream is not None:
            stream.cancelled._set(reason, connection.run_in_executor)
        if on_close is not None and context is not None:
            connection.run_in_executor(lambda: context.run(_close, connection.name, on_close, reason, stats))


def _close(
    name: str, on_close: Callable[[CloseReason, StreamStats], object], reason: CloseReason, stats: StreamStats
) -> None:
    foreign("on_close")
    try:
        on_close(reason, stats)
    except Exception:
        logger.exception("on_close of the event stream %s failed", escape(name))
