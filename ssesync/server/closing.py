"""How a stream ends: by its server, by a call of cancel() or stop(), by the reactor, and by having been dropped."""

from __future__ import annotations

import contextvars
import functools
import logging
from typing import Any, cast

from ..cancel import CancelToken
from ..errors import CloseReason
from ..executor import callers
from ..reactor import reactor_if_any, run_foreign
from ..text import escape
from .detaching import Takeover
from .lifecycle import Lifecycle, State
from .producer import InlineProducer
from .record import call_on_close
from .registry import streams
from .status import StreamStatus

__all__ = ["Closable"]

logger = logging.getLogger("ssesync")

# Seconds after which a stream that was opened is no longer expected to be asked for its first bytes: a server does so
# at once, unless an error took the place of the response and something keeps that, a debugger's page say.
_ABANDONED = 30


class Closable(StreamStatus):
    """The ways in which an :class:`EventStream` ends. All lead to :meth:`_end`, which runs once."""

    cancelled: CancelToken
    _takeover: Takeover | None
    _admitted: str | None
    _opened: float | None
    _context: contextvars.Context

    def _enter(self) -> bool:
        """The server's thread is in here from now on. Another thread, or a signal handler that has interrupted this
        one, then leaves it to this thread to close the stream."""
        outer, self._lifecycle.inside = self._lifecycle.inside, True
        return outer

    def _leave(self, outer: bool) -> None:
        """It is no more."""
        self._lifecycle.inside = outer
        if self._lifecycle.closing and not outer:
            self._close()

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End the stream at once, from any thread: what waits is dropped, its producer gets ``StreamClosed``.

        :param reason: why, for ``on_close`` and the log.
        """
        if not self._lifecycle.is_over:
            self._cancel(CloseReason(reason))
        elif self._detached is not None:
            self._detached.cancel(reason)

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End the stream, from any thread: what waits is sent, then ``last``. The producer gets ``StreamClosed``.

        A client that can resume (``Settings.resumable``) gets a reconnection time: the stream's, and up to twice that
        by chance, so that clients which are ended together don't come back together. Any other gets an error event
        and an incomplete answer.

        :param reason: why, for ``on_close`` and the log.
        :param last: whole blocks of an event stream.
        """
        if not self._lifecycle.is_over:
            reason = CloseReason(reason)
            self._lifecycle.ask(reason, last)  # before the source is read: _end_early() has the other order
            if self._source is not None:
                self._source.stop(reason, last)
            self.cancelled._set(reason, run_foreign)
        elif self._detached is not None:
            self._detached.stop(reason, last)

    def _end_early(self) -> None:
        """Do what was asked before there was a source to be asked."""
        request = self._lifecycle.request
        if request is not None and self._source is not None:
            if request.last is None:
                self._source.cancel(request.reason)
            else:
                self._source.stop(request.reason, request.last)

    def _tick(self, now: float) -> None:
        """Look for a stalled client, and for a server that never asked for the stream. On the reactor's thread."""
        if (busy := self._liveness or self._takeover) is not None:
            busy.tick(now)
        if self._opened is not None and now - self._opened > _ABANDONED:
            self._opened = None
            # One that runs step by step does not run while nothing pulls.
            if self._lifecycle.state is State.OPEN and not isinstance(self._source, InlineProducer):
                callers().submit(self._close_abandoned)

    def _close_abandoned(self) -> None:
        logger.warning(
            "the event stream %s was opened %d s ago and nothing of it was asked for, so it ends: an error page or "
            "another response was sent instead, and something keeps this one",
            escape(self._spec.name),
            _ABANDONED,
        )
        self.close()

    def close(self) -> None:
        """What every server calls when it is done with the answer, early if the client left. Any number of times.

        From a thread that is not the server's it is as :meth:`cancel` while that is in here: it ends the stream as it
        gets out. Else the stream has ended, and ``on_close`` was called, when this returns.
        """
        # In this order, and in _leave() in the other, one of the two sees what the other did.
        self._lifecycle.closing = True
        if not self._lifecycle.inside:
            self._close()
        elif not self._lifecycle.is_over:
            self.cancel(self._reason_to_close)

    @property
    def _reason_to_close(self) -> CloseReason:
        # A server that closes before the end could not send: its client is gone.
        reason = CloseReason.CLIENT_GONE if self._lifecycle.state is State.SENDING else CloseReason.CANCELLED
        return (self._source.reason if self._source is not None else None) or reason

    def _close(self) -> None:
        if self._takeover is not None:
            self._takeover.close()
        self._ending.close()
        if not self._lifecycle.is_over:
            self._end(self._reason_to_close)

    def _end(self, reason: CloseReason) -> None:
        if not self._lifecycle.end():
            return
        if self._liveness is not None:
            self._liveness.end()
        if reason is not CloseReason.DONE:
            self._cancel(reason)
        if self._source is not None:
            self._source.close()
        else:
            self._spec.factory.discard()
        streams.unlocked(functools.partial(self._settle, reason))

    def _settle(self, reason: CloseReason) -> None:
        if self._admitted is not None:
            streams.leave(cast(Any, self), self._admitted, reason)
        on_close = self._spec.on_close
        if on_close is not None and self._source is not None:
            self._context.run(call_on_close, self._spec.name, on_close, reason, self.stats)

    def _cancel(self, reason: CloseReason) -> None:
        if self._output.drop_rest():
            self._ending.torn = True
        self._lifecycle.ask(reason, None)  # before the source is read, as in stop()
        if self._source is not None:
            self._source.cancel(reason)
        self.cancelled._set(reason, run_foreign)

    def __del__(self) -> None:
        # Made, and then dropped by what should have served it: the producer must not wait for ever. Garbage is
        # collected in the middle of anything, perhaps with a lock held: so this only asks for the end.
        lifecycle: Lifecycle | None = self.__dict__.get("_lifecycle")
        if lifecycle is None or lifecycle.is_over:
            return  # the constructor failed, or it has ended
        if self._source is not None or self._spec.factory.is_live:
            current = reactor_if_any()
            if current is not None:
                current.call_from_signal(functools.partial(callers().submit, self.close))
            else:
                self.close()
