"""Detaching a stream from its server's thread; if that is not possible, the server's thread serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import CloseReason
from .closing import Closable
from .detaching import Detached, Handover, Head, Takeover, feed
from .lifecycle import State
from .liveness import Liveness
from .record import DetachedRecord
from .registry import streams
from .source import Detachable, Source, Tappable
from .starts import views

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Leaving"]

# Bytes that a server's thread can send without waiting, whatever the client does.
_REST = 4096


class Leaving(Closable):
    """The hand-over of an :class:`EventStream` from its server to the reactor, or back to the server."""

    _detached: Detached | None
    _environ: WSGIEnvironment | None

    def stay_served(self, why: str) -> None:
        """Do not detach this stream, since a middleware has to see all of its chunks. Called before the first is taken.

        :param why: the reason, for the log.
        """
        if self._takeover is not None:
            self._takeover.why = why

    def _watch_over(self) -> None:
        streams.warn_once(self._environ or {})
        self._liveness = Liveness(self, self._environ or {}, self.settings)

    def _begin_to_leave(self, takeover: Takeover) -> None:
        """Capture the head that the server writes, unless the stream stays served."""
        if self._is_over_soon():
            self._takeover = None
            takeover.close()
        elif not takeover.begin():
            self._stay(takeover)

    def _is_over_soon(self) -> bool:
        """Whether the producer has ended and the rest fits into any socket: then detaching has no use, and the client
        may use its connection again."""
        source = self._source
        if source is None or source.reason is None or isinstance(source, Detachable):
            return False
        return source.pending[1] <= _REST and streams.keep_served(self)

    def _set_detached(self, connection: Detached) -> None:
        self._detached = connection

    def _detach(self, takeover: Takeover) -> bool:
        """Hand the client over to the reactor.

        :return: whether that was possible. Then the server's answer is over, and the stream continues.
        """
        source = cast(Source, self._source)

        def give(fd: int, head: Head) -> None:
            orderly = self._ending.is_orderly(source.resumable)
            output = self._output
            handover = Handover(
                fd, head.chunked, head.wire, self.name, self.settings, output.created, output.bytes, orderly
            )
            record = DetachedRecord(self, cast(str, self._admitted), self._spec.on_close, self._context)
            if isinstance(source, Detachable):
                source.detach(handover, record)
            else:
                feed(source, handover, record, self._ending)

        if takeover.complete(give):
            self._lifecycle.advance(State.DETACHED)
            views.detached(self._spec.factory.view)
            return True
        self._stay(takeover)
        return False

    def _stay(self, takeover: Takeover) -> None:
        """Stay served, since the connection could not be taken over; end if a limit forbids that."""
        self._takeover = None
        takeover.close()
        if isinstance(self._source, Tappable):
            views.stayed(self._spec.factory.view())
        is_served = streams.keep_served(self) and not takeover.is_short
        if self.reason is None:
            streams.log_not_detached(self.name, takeover.why, served=is_served)
        self._watch_over()
        if not is_served:
            self.stop(CloseReason.CANCELLED)
