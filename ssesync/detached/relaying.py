"""Relays: detached clients, each with an upstream of its own. The reactor reads one socket and writes the other.

An upstream is a :class:`ssesync.producing.Tap`. Its bytes are passed on in whole blocks, as the thread does for a
served client (``client/relay.py``), and the stream ends in the same way: a relay is a feed whose source is the
upstream.

While the client has unsent bytes, the upstream is not read, and so its system stops sending: that is the back-pressure.
Its descriptor is removed from the reactor meanwhile, as an unread end would be reported again and again. The end of the
upstream is noticed when the client has accepted all bytes, and a stalled client is cut off after ``send_timeout``.
"""

from __future__ import annotations

import time
from typing import NamedTuple, cast

from ..errors import CloseReason, ConnectionLost, EventTooLarge, IdleTimeout, ReadError
from ..producing import Tap
from ..server.detaching import Handover, Record
from ..server.ending import Ending
from ..server.producer import log_failure
from ..server.source import END, PENDING, Pulled, Source
from ..wire.blocks import Blocks, sets_id
from ..wire.chunked import ChunkDecoder
from .connections import Connections
from .feed import Feed, Feeds
from .group import Group
from .sending import PIECE
from .state import State

__all__ = ["Relay", "Relays", "UpstreamSource"]


class _Ended(NamedTuple):
    reason: CloseReason
    last: bytes = b""


class UpstreamSource(Source):
    """The bytes of an upstream. Any thread may cancel and stop it, and read its properties; the other methods are for
    the reactor's thread.

    :param tap: the upstream's connection. It is closed with this.
    """

    __slots__ = ("_blocks", "_chunks", "_ends", "_events", "_resumable", "_tap", "error", "on_ready")

    def __init__(self, tap: Tap) -> None:
        self.on_ready = None
        self.error = None
        self._events = 0
        self._tap = tap
        self._chunks = tap.body if isinstance(tap.body, ChunkDecoder) else None
        self._blocks = Blocks()
        self._resumable = False
        self._ends: list[_Ended] = []  # the first one counts

    # Any thread.

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Source`."""
        return self._ends[0].reason if self._ends else None

    @property
    def pending(self) -> tuple[int, int]:
        """See :class:`Source`. Received bytes are passed on at once, but for the first part of an event."""
        return 0, 0

    @property
    def events(self) -> int:
        """See :class:`Source`. Blocks with a blank line at their end are counted."""
        return self._events

    @property
    def resumable(self) -> bool:
        """See :class:`Source`."""
        return self._resumable

    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        """See :class:`Source`."""
        if dropped and self.reason is CloseReason.DONE:
            self._ends[0] = _Ended(CloseReason(reason))
        self._end(CloseReason(reason))

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """See :class:`Source`."""
        self._end(CloseReason(reason), last)

    def _end(self, reason: CloseReason, last: bytes = b"") -> None:
        self._ends.append(_Ended(reason, last))
        if (ready := self.on_ready) is not None:
            ready()

    # The reactor's thread.

    def receive(self) -> bytes | None:
        """Receive bytes without waiting.

        :return: the bytes; ``None``: none now, or the connection broke, which has ended this source.
        """
        try:
            return self._tap.receive()
        except OSError as error:
            lost = ConnectionLost(f"the connection broke: {error}")
            lost.__cause__ = error
            self.fail(lost)
            return None

    def whole(self, data: bytes) -> int:
        """Check whether bytes can be passed on as they are: one whole chunk, which ends between two blocks.

        :param data: the bytes.
        :return: the offset of the chunk's data, which was counted; 0: pass the bytes to :meth:`take`.
        """
        chunks = self._chunks
        if chunks is None or not (data.endswith(b"\n\n\r\n") and chunks.is_between and self._blocks.is_between):
            return 0
        start = chunks.whole(data)
        if not start or data.find(b"\r", start, -2) >= 0:
            return 0
        self._count(data, data.count(b"\n\n"))
        return start

    def take(self, data: bytes) -> Pulled:
        """Decode received bytes; see :meth:`pull`."""
        body, blocks = self._tap.body, self._blocks
        given = b""
        error: ReadError | None
        if data:
            pieces = body.decode(data)
            if pieces:
                given, events = blocks.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                self._count(given, events)
            error = body.error
            if blocks.size > self._tap.max_event_size:
                error = ReadError(f"the upstream sent too large an event: {self._too_large()}")
        else:
            error = body.end()
        if error is not None:
            self.fail(error)
        elif body.done:
            # Not an event, as it is incomplete: the client decides what to do with it. After a broken connection it
            # would corrupt the error event.
            given += blocks.rest()
            self._end(CloseReason.DONE)
        if given:
            return given
        return END if self._ends else PENDING

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`. One call receives once."""
        if self._ends:
            end = self._ends[0]
            if not end.last:
                return END
            self._ends[0] = end._replace(last=b"")
            return end.last
        held, self._tap.held = self._tap.held, b""
        data = held or self.receive()
        if data is None:
            return END if self._ends else PENDING
        return self.take(data)

    def fail(self, error: ReadError) -> None:
        """End with an error of the upstream."""
        if not self._ends:
            self.error = error
            self._end(CloseReason.ERROR)

    def is_pending(self) -> bool:
        """Whether :meth:`pull` must be called although the upstream's descriptor is not readable."""
        return bool(self._ends) or self._tap.is_pending()

    def close(self) -> None:
        """Close the upstream's connection."""
        self._tap.close()

    def _count(self, data: bytes, events: int) -> None:
        self._events += events
        if (resumable := sets_id(data)) is not None:
            self._resumable = resumable

    def _too_large(self) -> EventTooLarge:
        return EventTooLarge(self._blocks.size, self._tap.max_event_size)


class Relay(Feed):
    """One client and its upstream."""

    __slots__ = ("_fd", "_idle_timeout", "_is_read", "_last_read", "_upstream")

    def __init__(
        self,
        connections: Connections,
        handover: Handover,
        group: Group,
        record: Record,
        tap: Tap | None,
        ending: Ending,
        source: Source,
    ) -> None:
        super().__init__(connections, handover, group, record, source, ending)
        source.on_ready = self.wake
        self._upstream: UpstreamSource | None = None
        self._fd = -1
        self._idle_timeout: float | None = None
        self._is_read = False  # the reactor reads its descriptor
        self._last_read = 0.0
        if tap is not None:
            self._use(tap)

    def _use(self, tap: Tap) -> None:
        """Set the upstream as the source."""
        self._source.on_ready = None
        self._source = self._upstream = upstream = UpstreamSource(tap)
        upstream.on_ready = self.wake
        self._fd, self._idle_timeout = tap.fileno(), tap.idle_timeout

    def on_readable(self) -> None:
        """Receive, as the upstream's descriptor is readable."""
        upstream = self._upstream
        if upstream is None or self.state is not State.IN_SYNC or upstream.reason is not None:
            self._pause()  # flush() or drained() will be called
            return
        data = upstream.receive()
        if data is None:
            if upstream.reason is not None:
                self.flush()
            return
        self._last_read = now = time.monotonic()
        start = upstream.whole(data)
        if not start:
            self._give(upstream, upstream.take(data))
            return
        # Framed as it is: most upstreams send an event by a chunk.
        wire = data if self.chunked else data[start:-2]
        self.sent.add(0, len(data) - start - 2, 0, now)
        if not self.put(wire):
            self._wait()
        elif upstream.is_pending():
            self.wake()

    def flush(self) -> None:
        """Receive and pass on, unless the client has unsent bytes."""
        if (upstream := self._upstream) is None:
            super().flush()
            return
        self._woken = False
        if self._has_ended:
            return
        if self.state is not State.IN_SYNC:
            self._pause()
            return
        self._last_read = time.monotonic()
        self._give(upstream, upstream.pull(PIECE))

    def _give(self, upstream: UpstreamSource, pulled: Pulled) -> None:
        if isinstance(pulled, bytes):
            if not self.give(pulled):
                self._wait()
                return
        elif pulled is END:
            self._end()
            return
        if upstream.is_pending():
            self.wake()
        self._resume()

    def _wait(self) -> None:
        """Stop reading the upstream: the client has unsent bytes, or is closed."""
        if self.state is State.IN_SYNC:
            self.group.move(self, State.DRAINING)
        self._pause()

    def _resume(self) -> None:
        if self._is_read or self.closed:
            return
        try:
            self._connections.read_upstream(self._fd, self.on_readable)
        except OSError as error:
            self._log_unwatched(error)
            self.abort(CloseReason.ERROR)
        else:
            self._is_read = True

    def _pause(self) -> None:
        if self._is_read:
            self._is_read = False
            self._connections.stop_reading_upstream(self._fd)

    def check_idle(self, now: float) -> None:
        """End a stream whose upstream was silent for too long."""
        if self._upstream is not None and self._is_idle(now):
            self._upstream.fail(IdleTimeout("no byte arrived within the read timeout"))

    def _is_idle(self, now: float) -> bool:
        idle = self._idle_timeout
        return idle is not None and self._is_read and now - self._last_read > idle

    def _end(self) -> None:
        if (upstream := self._upstream) is not None:
            self.release()  # at once, even if the client has unsent bytes
            if (error := upstream.error) is not None:
                self.run_in_executor(lambda: log_failure(self.name, error))
        super()._end()

    def release(self) -> None:
        """Close the upstream's connection."""
        if self._upstream is None:
            super().release()
            return
        self._pause()
        self._upstream.close()


class Relays(Feeds):
    """The relays of this process."""

    def tick(self, now: float) -> None:
        """See :class:`Group`."""
        super().tick(now)
        for each in list(self._open):
            cast(Relay, each).check_idle(now)
