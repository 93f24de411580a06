"""The record of a detached stream: counts it, and calls its ``on_close``."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ..cancel import CancelToken
from ..errors import CloseReason
from ..executor import callers, logged
from ..locks import foreign
from ..text import escape
from .detaching import Detached, Served
from .registry import streams
from .stats import StreamStats

__all__ = ["DetachedRecord", "ReceivedRecord", "call_on_close"]

logger = logging.getLogger("ssesync")


class Detaching(Served, Protocol):
    """The part of a stream that is used here, before it is detached."""

    cancelled: CancelToken

    def _set_detached(self, connection: Detached) -> None:
        """The client has this connection of the reactor's from now on."""


class DetachedRecord:
    """Counts a detached stream, and calls its ``on_close``. See :class:`ssesync.server.detaching.Record`."""

    __slots__ = ("_calls", "_context", "_has_ended", "_on_close", "_stream", "key")

    def __init__(
        self,
        stream: Detaching,
        key: str,
        on_close: Callable[[CloseReason, StreamStats], object] | None,
        context: contextvars.Context,
    ) -> None:
        self._stream = weakref.ref(stream)
        self._calls: list[Callable[[], object]] = []  # of at_end(); a deque takes 600 bytes more
        self._has_ended = False
        #: The stream's key.
        self.key = key
        self._on_close = on_close
        # A context refers to the request and all that the request refers to.
        self._context = None if on_close is None else context

    @property
    def is_bound(self) -> bool:
        """See :class:`ssesync.server.detaching.Record`."""
        return self._on_close is not None or bool(self._calls)

    @property
    def is_movable(self) -> bool:
        """See :class:`ssesync.server.detaching.Record`. The application may end a stream that it refers to."""
        return not self.is_bound and self._stream() is None

    def began(self, connection: Detached) -> None:
        """Count the stream as detached."""
        stream = self._stream()
        assert stream is not None
        stream._set_detached(connection)  # before the client may leave, and ``on_close`` read the stream's properties
        streams.detached(stream, self.key, connection)

    def at_end(self, call: Callable[[], object]) -> None:
        """See :class:`ssesync.server.detaching.Record`."""
        self._calls.append(call)  # in this order, and in ended() in the other: one of the two makes the call
        if self._has_ended:
            self._release()

    def ended(self, connection: Detached, reason: CloseReason, stats: StreamStats) -> None:
        """Count the stream as closed; on the executor's threads, log its line, set its token and call ``on_close``, and
        then the functions of :meth:`at_end`."""
        self._has_ended = True
        run = callers().submit
        streams.leave(connection, self.key, reason, run)
        stream, on_close, context = self._stream(), self._on_close, self._context
        if stream is not None and reason is not CloseReason.DONE:
            stream.cancelled._set(reason, run)
        if on_close is not None and context is not None:
            run(lambda: self._close(context, connection.name, on_close, reason, stats))
        elif self._calls:
            run(self._release)

    def _close(self, context: contextvars.Context, *what: Any) -> None:
        try:
            context.run(call_on_close, *what)
        finally:
            self._release()

    def _release(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                logged(self._calls.pop(0))


class ReceivedRecord:
    """Counts a detached stream that comes from another process. See :class:`ssesync.server.detaching.Record`.

    :param key: the stream's.
    """

    __slots__ = ("key",)
    #: No function of the application is called at its end.
    is_bound = False
    #: Nothing in this process depends on the stream.
    is_bound, is_movable = False, True

    def __init__(self, key: str) -> None:
        #: The stream's key.
        self.key = key

    def began(self, connection: Detached) -> None:
        """Count the stream.

        :raises RuntimeError: this process stops, or holds as many streams as it may.
        """
        streams.receive(connection, self.key)

    def at_end(self, call: Callable[[], object]) -> None:
        """See :class:`ssesync.server.detaching.Record`. Not used: a subscription does not use its request."""

    def ended(self, connection: Detached, reason: CloseReason, stats: StreamStats) -> None:
        """Count the stream as closed, and log its line on a thread of the executor."""
        streams.leave(connection, self.key, reason, callers().submit)


def call_on_close(
    name: str, on_close: Callable[[CloseReason, StreamStats], object], reason: CloseReason, stats: StreamStats
) -> None:
    """Call ``on_close`` of a stream, and log its exception.

    :param name: the stream's, for the log.
    :param on_close: the user's function.
    :param reason: why the stream has ended.
    :param stats: its figures.
    """
    foreign("on_close")
    try:
        on_close(reason, stats)
    except Exception:
        logger.exception("on_close of the event stream %s failed", escape(name))
