"""The end of a stream: by its server, by cancel() or stop(), by the reactor, or by the garbage collector."""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Callable
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

# Seconds after which a stream counts as abandoned if its first bytes were not taken. A server takes them at once,
# unless an error has replaced the response and, for example, a debugger's page keeps a reference to it.
_ABANDONED = 30


class Closable(StreamStatus):
    """The ways in which an :class:`EventStream` ends. All lead to :meth:`_end`, which runs once."""

    cancelled: CancelToken
    _takeover: Takeover | None
    _admitted: str | None
    _opened: float | None
    _context: contextvars.Context

    def _enter(self) -> bool:
        """Note that the server's thread is inside the stream. If another thread, or a signal handler that interrupts
        this one, closes the stream, this thread does the work when it leaves.

        :return: whether it was inside before.
        """
        outer, self._lifecycle.inside = self._lifecycle.inside, True
        return outer

    def _leave(self, outer: bool) -> None:
        """Undo :meth:`_enter`, and close the stream if that was requested meanwhile.

        :param outer: the result of :meth:`_enter`.
        """
        self._lifecycle.inside = outer
        if self._lifecycle.closing and not outer:
            self._close()

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End the stream at once, from any thread: pending writes are dropped, its producer gets ``StreamClosed``.

        :param reason: why, for ``on_close`` and the log.
        """
        if not self._lifecycle.is_over:
            self._cancel(CloseReason(reason))
        elif self._detached is not None:
            self._detached.cancel(reason)

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End the stream, from any thread: pending writes are sent, then ``last``. The producer gets ``StreamClosed``.

        A client that can resume (``Settings.resumable``) gets a reconnection time: between the stream's and twice that,
        at random, so that the clients of many streams that end together don't reconnect together. Any other client gets
        an error event and an incomplete answer.

        :param reason: why, for ``on_close`` and the log.
        :param last: whole blocks of an event stream.
        """
        if not self._lifecycle.is_over:
            reason = CloseReason(reason)
            self._lifecycle.request_end(reason, last)  # before the source is read: _end_early() has the other order
            if self._source is not None:
                self._source.stop(reason, last)
            self.cancelled._set(reason, run_foreign)
        elif self._detached is not None:
            self._detached.stop(reason, last)

    def defer(self, call: Callable[[], object]) -> bool:
        """Call a function at the stream's end, if the stream continues after the end of the server's response, and its
        producer may need resources that the response would release. For the integrations.

        :param call: the function. It is called on a helper thread, after ``on_close``.
        :return: whether it will be called.
        """
        return self._detached is not None and self._detached.at_end(call)

    def _end_early(self) -> None:
        """Cancel or stop the source, if that was requested before there was a source."""
        request = self._lifecycle.request
        if request is not None and self._source is not None:
            if request.last is None:
                self._source.cancel(request.reason)
            else:
                self._source.stop(request.reason, request.last)

    def _tick(self, now: float) -> None:
        """Check for a stalled client, and for a server that never takes the stream. On the reactor's thread."""
        if (busy := self._liveness or self._takeover) is not None:
            busy.tick(now)
        if self._opened is not None and now - self._opened > _ABANDONED:
            self._opened = None
            # An inline producer does not run while nothing pulls.
            if self._lifecycle.state is State.OPEN and not isinstance(self._source, InlineProducer):
                callers().submit(self._close_abandoned)

    def _close_abandoned(self) -> None:
        logger.warning(
            "the event stream %s was opened %d s ago and the server has taken no bytes of it, so it is closed: an "
            "error page or another response was sent instead, and a reference keeps this one alive",
            escape(self._spec.name),
            _ABANDONED,
        )
        self.close()

    def close(self) -> None:
        """Release the stream. Every server calls this at the end of the answer, or when the client has left. Any number
        of times.

        If the server's thread is inside the stream, a call from another thread acts as :meth:`cancel`, and the server's
        thread ends the stream when it leaves. In all other cases the stream has ended, and ``on_close`` was called,
        when this returns.
        """
        # This writes `closing` and then reads `inside`; _leave() writes `inside` and then reads `closing`. So at least
        # one of them sees the other's write.
        self._lifecycle.closing = True
        if not self._lifecycle.inside:
            self._close()
        elif not self._lifecycle.is_over:
            self.cancel(self._reason_to_close)

    @property
    def _reason_to_close(self) -> CloseReason:
        # A server that closes before the end could not send, as its client has left.
        reason = CloseReason.CLIENT_GONE if self._lifecycle.state is State.SENDING else CloseReason.CANCELLED
        source = self._source
        if source is None or (source.reason is CloseReason.DONE and (self._output.rest or source.pending[0])):
            return reason  # the producer has ended, and its client has not got all
        return source.reason or reason

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
        dropped = self._output.drop_rest()
        if dropped:
            self._ending.torn = True
        self._lifecycle.request_end(reason, None)  # before the source is read, as in stop()
        if self._source is not None:
            self._source.cancel(reason, dropped=dropped)
        self.cancelled._set(reason, run_foreign)

    def __del__(self) -> None:
        # Never served, and now garbage: its producer must not wait for ever. A collection may interrupt code that holds
        # a lock, so this only submits the call that ends the stream.
        lifecycle: Lifecycle | None = self.__dict__.get("_lifecycle")
        if lifecycle is None or lifecycle.is_over:
            return  # the constructor failed, or it has ended
        if self._source is not None or self._spec.factory.is_live:
            current = reactor_if_any()
            if current is not None:
                current.call_from_signal(functools.partial(callers().submit, self.close))
            else:
                self.close()
