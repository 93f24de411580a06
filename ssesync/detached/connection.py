"""One detached client: its socket, its state, and its unsent bytes."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import CloseReason
from ..executor import logged
from ..server.detaching import Handover, Record
from ..server.ending import encode_error, finishes
from ..server.framing import make_trailer
from ..server.stats import StreamStats, describe
from ..text import escape
from ..wire.chunked import LAST_CHUNK, to_chunk
from .accounting import Sent
from .disconnecting import disconnect
from .sending import AGAIN, PIECE, Unsent
from .state import OVER, State
from .transfer import FrozenConnection

if TYPE_CHECKING:
    from .connections import Connections
    from .group import Group

__all__ = ["Connection", "Handover", "Record"]

logger = logging.getLogger("ssesync")

# The states in which requests to end wait for the next state.
_DEFERS = frozenset((State.ARRIVING, State.FROZEN))


class Connection:
    """One client. Any thread may call :meth:`cancel` and :meth:`stop` and read the properties. All other methods are
    for the reactor's thread.

    There are thousands, so each is small: the common parts are in its group.
    """

    __slots__ = (
        "_connections", "_deferred", "_reason", "began", "chunked", "fd", "group", "name", "orderly",
        "record", "registration", "sent", "settings", "state", "unsent",
    )  # fmt: skip

    def __init__(
        self, connections: Connections, handover: Handover, group: Group, record: Record, registration: Any
    ) -> None:
        self._connections = connections
        self.fd = handover.fd
        # Not the handover itself, which takes 96 bytes and has the head.
        self.name, self.settings, self.began = handover.name, handover.settings, handover.began
        self.chunked, self.orderly = handover.chunked, handover.orderly
        self.group = group
        self.record = record
        #: The source's own data of the client.
        self.registration = registration
        #: Changed by the group alone.
        self.state = State.ARRIVING
        self.sent = Sent(handover.given)
        self._reason: CloseReason | None = None  # why it is ending, or closed
        self._deferred: Callable[[], object] | None = None  # requested before it was registered, or while it is frozen
        #: The bytes that the client must accept before it can be sent more. Set by the connection alone.
        self.unsent: Unsent | None = None

    # Any thread.

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.state is State.CLOSED

    @property
    def reason(self) -> CloseReason | None:
        """Why it has ended, or ends as soon as all pending bytes are sent; ``None`` otherwise."""
        return self._reason

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End at once: pending bytes are dropped."""
        why = CloseReason(reason)
        self._connections.call_soon(lambda: self.abort(why))

    #: For the dispatcher.
    close = cancel

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End after all pending bytes, then ``last``, then a reconnection time, or an error event if the client can't
        resume."""
        why = CloseReason(reason)
        self._connections.call_soon(lambda: self.finish(why, last))

    def run_in_executor(self, call: Callable[[], object]) -> None:
        """Call users' code, which may wait, on a thread of the executor."""
        self._connections.run_in_executor(call)

    def at_end(self, call: Callable[[], object]) -> bool:
        """See :class:`ssesync.server.detaching.Detached`. A subscription does not use its request."""
        return False

    @property
    def finishes(self) -> bool:
        """Whether the stream continues to its own end, for a limited time, when the process stops."""
        return finishes(self.settings, self.orderly)

    @property
    def stats(self) -> StreamStats:
        """The stream's figures so far."""
        return StreamStats(*self.sent.total(self.group.totals), time.monotonic() - self.began)

    @property
    def last_write(self) -> float:
        """When bytes were last sent to it, on the monotonic clock."""
        return max(self.sent.last, self.group.last_write) if self.state is State.IN_SYNC else self.sent.last

    @property
    def senses_disconnect(self) -> bool:
        """Whether a client that leaves is noticed at once; else by failing keep-alives."""
        return self.settings.sense_disconnect

    def describe(self) -> dict[str, Any]:
        """Describe the stream.

        :return: its part of ``streams.snapshot()``.
        """
        unsent = self.unsent
        events, size = self.group.pending_of(self)
        now, pending = time.monotonic(), (events, size + (0 if unsent is None else len(unsent)))
        return describe(self, now - self.began, pending, now - self.last_write, "detached")

    # The reactor's thread: sending.

    @property
    def waits(self) -> bool:
        """Whether the client must accept unsent bytes before it can be sent more."""
        return self.unsent is not None

    def open(self, head: bytes) -> None:
        """Send the head, or the rest of it."""
        if head:
            self.put(head)
        self.carry_out_deferred()

    def carry_out_deferred(self) -> None:
        """Carry out what was requested before the connection was registered, or while it was frozen."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred()

    def give(self, data: bytes, events: int = 0, keep_alives: int = 0) -> bool:
        """Send events to this client alone, after its unsent bytes.

        :return: whether the client has accepted all of them.
        """
        return self.put(self.counted(data, events, keep_alives))

    def counted(self, data: bytes, events: int = 0, keep_alives: int = 0) -> bytes:
        """Count events that are sent to this client alone.

        :return: the events, in the transfer coding of the response.
        """
        self.sent.add(events, len(data), keep_alives, time.monotonic())
        return to_chunk(data) if self.chunked else data

    def put(self, wire: bytes) -> bool:
        """Send bytes as they are, after the unsent ones, and keep those that the client does not accept.

        :return: whether the client has accepted all of them.
        """
        if self.unsent is not None:
            self.unsent.pieces.append(memoryview(wire))
            return False
        return self.keep(wire, self._connections.send(self.fd, wire, len(wire)))

    def keep(self, wire: bytes, sent: int) -> bool:
        """Keep the bytes that send() did not accept.

        :param wire: all bytes.
        :param sent: its result, see :func:`ssesync.detached.sending.make_send`.
        :return: whether it accepted all.
        """
        if sent == len(wire):
            return True
        if sent < 0 and sent not in AGAIN:
            self.abort(CloseReason.CLIENT_GONE)
            return False
        self.unsent = Unsent(memoryview(wire)[max(0, sent) :], self.settings.send_timeout)
        self._watch_writable(True)
        return False

    def on_event(self, gone: bool, writable: bool) -> None:
        """The client is gone, or the socket is writable. See :class:`ssesync.reactor.Handler`."""
        if self.state in _DEFERS:
            return  # this may be of the number's former connection; what lasts is reported again in the next turn
        if gone:
            self.abort(CloseReason.CLIENT_GONE)
        elif writable:
            self.on_writable()

    def on_writable(self) -> None:
        """Send the unsent bytes, as the socket is writable."""
        unsent = self.unsent
        while unsent is not None and unsent.pieces:
            piece = bytes(unsent.pieces[0][:PIECE])
            sent = self._connections.send(self.fd, piece, len(piece))
            if sent < 0 and sent not in AGAIN:
                self.abort(CloseReason.CLIENT_GONE)
                return
            unsent.drop(max(0, sent))
            if sent < len(piece):
                self.group.progressed(self)
                return
        if unsent is None:
            return
        self.unsent = None
        self._watch_writable(False)
        if self.state is State.ENDING:
            self._close(self._reason or CloseReason.CANCELLED)
        else:
            self.group.drained(self)

    def _watch_writable(self, wanted: bool) -> None:
        try:
            self._connections.watch_writable(self, wanted)
        except OSError as error:
            self._log_unwatched(error)
            self.abort(CloseReason.ERROR)

    def _log_unwatched(self, error: OSError) -> None:
        logger.error(
            "the detached stream %s is closed, as its socket can't be watched: %s", escape(self.name), escape(error)
        )

    # The reactor's thread: another process.

    def freeze(self) -> FrozenConnection:
        """Send nothing from now on, and have the reactor ignore the socket. The caller changes the state first.

        :return: the connection's values for another process.
        """
        now, unsent = time.monotonic(), self.unsent
        events, size, keep_alives = self.sent.total(self.group.totals)
        return FrozenConnection(
            fd=self.fd, chunked=self.chunked, name=self.name, key=self.record.key, settings=self.settings,
            orderly=self.orderly, unsent=b"" if unsent is None else b"".join(unsent.pieces), age=now - self.began,
            silent=now - self.last_write, stalled=0.0 if unsent is None else now - unsent.since,
            lifetime=self._connections.freeze(self), events=events, bytes=size, keep_alives=keep_alives,
        )  # fmt: skip

    def thaw(self, lifetime: float | None) -> bool:
        """Undo :meth:`freeze`, except the state.

        :param lifetime: the rest of its lifetime, in seconds.
        :return: whether that was possible. If not, it is closed.
        """
        try:
            self._connections.thaw(self, lifetime)
        except OSError as error:
            self.fail(error)
            return False
        return True

    def restore(self, frozen: FrozenConnection) -> None:
        """Continue the figures of a connection that comes from another process, before it is registered."""
        now = time.monotonic()
        self.began = now - frozen.age
        self.sent.restore(frozen.events, frozen.bytes, frozen.keep_alives, now - frozen.silent)

    def release(self) -> None:
        """Close the descriptor of a frozen connection, which another process serves now: nothing is sent, and the
        connection itself is not ended."""
        self._reason = CloseReason.TRANSFERRED
        self.group.move(self, State.CLOSED)
        self._connections.released(self)
        with contextlib.suppress(OSError):
            os.close(self.fd)
        self._forget(CloseReason.TRANSFERRED)

    # The reactor's thread: the end.

    def abort(self, reason: CloseReason) -> None:
        """End at once. Does nothing if it has ended."""
        if self.state in _DEFERS:
            self._deferred = lambda: self.abort(reason)  # in place of a request to end later
        elif self.state is not State.CLOSED:
            self._close(reason)

    def finish(self, reason: CloseReason, last: bytes = b"") -> None:
        """End after all pending bytes, ``last`` and the trailer. Does nothing if it is ending already."""
        if self.state in _DEFERS:
            self._deferred = self._deferred or (lambda: self.finish(reason, last))
            return
        if self.state in OVER:
            return
        if self.is_orderly(reason) or not callable(self.settings.error_event):
            self._finish(reason, last + self._trailer(reason))
            return

        def make() -> None:  # it calls the user's function
            trailer = self._trailer(reason)
            self._connections.call_soon(lambda: self._finish(reason, last + trailer))

        self.run_in_executor(make)

    def fail(self, error: OSError) -> None:
        """End a connection that can't be registered: not even its head is sent."""
        self._log_unwatched(error)
        self._close(CloseReason.ERROR)

    def _trailer(self, reason: CloseReason) -> bytes:
        """The last bytes: a reconnection time, or the error event; none if the client has everything."""
        if reason is CloseReason.DONE:
            return b""
        if self.orderly:
            return make_trailer(self.settings)
        return encode_error(self.settings, reason, None, self.name)

    def _finish(self, reason: CloseReason, last: bytes) -> None:
        if self.state in OVER:
            return
        rest, events = self.group.take_rest(self)
        self._reason = reason
        self.group.move(self, State.ENDING)
        if rest:
            self.give(rest, events)
        wire = self._framed(last, reason)
        if not self.closed and (self.put(wire) if wire else self.unsent is None):
            self._close(reason)

    def _framed(self, last: bytes, reason: CloseReason) -> bytes:
        if not self.chunked:
            return last
        return (to_chunk(last) if last else b"") + (LAST_CHUNK if self.is_orderly(reason) else b"")

    def is_orderly(self, reason: CloseReason) -> bool:
        """Whether the response may end as a complete one does.

        :param reason: why it ends.
        :return: whether it may.
        """
        return self.orderly or reason is CloseReason.DONE

    def _final_reason(self, reason: CloseReason) -> CloseReason:
        """The reason of the stream's end, if the connection is closed for this reason."""
        return reason

    def _close(self, reason: CloseReason) -> None:
        # No bytes may follow an unsent head, or the trailer.
        is_silent = self.state in (State.ARRIVING, State.ENDING)
        self._connections.unwatch(self)
        self._reason = why = self._final_reason(reason)
        # Before the steps that may fail: no more bytes are sent to the descriptor.
        self.group.move(self, State.CLOSED)
        logged(lambda: self._disconnect(reason, is_silent))
        self._forget(why)

    def _forget(self, why: CloseReason) -> None:
        logged(lambda: self.group.left(self))
        logged(lambda: self.record.ended(self, why, self.stats))
        self._connections.note_end()
        self.fd = -1  # another connection may have its number now

    def _disconnect(self, reason: CloseReason, is_silent: bool) -> None:
        handle = disconnect(self, reason, self._connections.send, is_silent=is_silent)
        if handle is not None:
            self._connections.reset_later(handle)
