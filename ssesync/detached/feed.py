"""Feeds: detached clients each of which has a source of its own, such as a producer's thread that fills a mailbox.

The source's threads use only one flag of a client: ``on_ready`` queues one call on the reactor's thread, however often
it is called before that call is made. The reactor pulls up to 64 kB, and sends them by one call. It pulls no more until
the client has accepted all of them: so the producer waits while its mailbox is full, and keeps the pace of its client,
as it does when the server's thread pulls.

A stream ends in the same way as on its server's thread: the first end counts, the same
:class:`ssesync.server.ending.Ending` makes the last bytes, and the events in its figures are those that the source has
made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from ..errors import CloseReason
from ..server.detaching import Handover, Record
from ..server.ending import ABSENT, Ending
from ..server.source import Pending, Pulled, Source
from ..server.stats import StreamStats
from ..wire.encoder import encode_keep_alive
from .accounting import NOTHING
from .connection import Connection
from .connections import Connections, connections
from .group import Group, check_transition
from .sending import PIECE
from .state import OVER, State

__all__ = ["Feed", "Feeds", "feed"]


class Feed(Connection):
    """One client and its source. Any thread may call what :class:`ssesync.server.detaching.Detached` has, and
    :meth:`wake`; the rest belongs to the reactor's thread.

    Its state is ``IN_SYNC`` while the client has accepted all sent bytes, and ``DRAINING`` while it has not.

    :param source: it is open. No other consumer pulls from it.
    :param ending: makes the last bytes.
    """

    __slots__ = ("_ending", "_has_ended", "_source", "_woken")

    def __init__(
        self,
        connections: Connections,
        handover: Handover,
        group: Group,
        record: Record,
        source: Source,
        ending: Ending,
    ) -> None:
        super().__init__(connections, handover, group, record, None)
        self._source = source
        self._ending = ending
        self._woken = False  # a call of flush() is queued
        self._has_ended = False  # all bytes were pulled

    # Any thread.

    def wake(self) -> None:
        """Queue a pull on the reactor's thread. The source's ``on_ready``."""
        if not self._woken:
            self._woken = True
            self._connections.call_soon(self.flush)

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Connection`."""
        return self._reason or self._source.reason

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End at once: what waits is dropped. The producer sees it before this returns."""
        why = CloseReason(reason)
        self._source.cancel(why)
        self._connections.call_soon(lambda: self.abort(why))

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End after all pending writes, then ``last``, then the last bytes of the stream's ``Ending``."""
        self._source.stop(reason, last)

    def at_end(self, call: Callable[[], object]) -> bool:
        """See :class:`ssesync.server.detaching.Detached`. The producer may use objects of its request."""
        self.record.at_end(call)
        return True

    @property
    def finishes(self) -> bool:
        """See :class:`Connection`."""
        return self._ending.finishes(self._source)

    @property
    def stats(self) -> StreamStats:
        """See :class:`Connection`. Events are those that the source has made, as of a served stream."""
        sent = self.sent
        return StreamStats(self._source.events, sent.bytes, sent.keep_alives, time.monotonic() - self.began)

    @property
    def last_write(self) -> float:
        """When bytes were last sent to it, on the monotonic clock."""
        return self.sent.last

    @property
    def pending(self) -> tuple[int, int]:
        """How many writes and bytes wait in the source."""
        return self._source.pending

    # The reactor's thread.

    def begin(self, head: bytes) -> None:
        """Serve the client from now on, beginning with the head."""
        self._connections.register(self, head)
        if self.state is State.OPENING:
            self.group.move(self, State.IN_SYNC if self.unsent is None else State.DRAINING)
            self.flush()

    def flush(self) -> None:
        """Pull and send, unless the client has unsent bytes."""
        self._woken = False  # before the pull: a later write calls on_ready again
        if self._has_ended:
            return
        for _ in range(2):
            if self.state is not State.IN_SYNC:
                return  # drained() continues
            pulled = self._source.pull(PIECE)
            if not isinstance(pulled, bytes):
                self._no_bytes(pulled)
                return
            if not self.give(pulled):
                if self.state is State.IN_SYNC:
                    self.group.move(self, State.DRAINING)
                return
        self.wake()  # there may be more, after the turn of other clients

    def _no_bytes(self, pulled: Pulled) -> None:
        """Pull again later, or end."""
        if not isinstance(pulled, Pending):
            self._end()
        elif pulled.again is not None:
            self._connections.call_later(pulled.again, self.flush)

    def send_keep_alive(self) -> None:
        """Send a keep-alive between two events."""
        data = encode_keep_alive(self.settings.keep_alive_event)
        if not self._has_ended and not self.give(data, 0, 1) and self.state is State.IN_SYNC:
            self.group.move(self, State.DRAINING)

    def finish(self, reason: CloseReason, last: bytes = b"") -> None:
        """End after all pending writes. Does nothing if the source has ended."""
        self._source.stop(reason, last)

    def abort(self, reason: CloseReason) -> None:
        """End at once; with the last bytes of the stream's ``Ending`` if the client has accepted whole events."""
        self._source.cancel(reason, dropped=self.unsent is not None)
        if self.state in (State.ARRIVING, State.CLOSED):
            return  # begin() does the rest
        if reason in ABSENT or self.unsent is not None or self.state is not State.IN_SYNC:
            self._close(reason)
        else:
            self.flush()

    def is_orderly(self, reason: CloseReason) -> bool:
        """See :class:`Connection`."""
        return reason is CloseReason.DONE or self._ending.is_orderly(self._source.resumable, reason)

    def _end(self) -> None:
        """Send the last bytes, after all bytes were pulled and sent."""
        self._has_ended = True
        reason = self._source.reason or CloseReason.DONE
        if reason is CloseReason.DONE or not callable(self.settings.error_event):
            self._send_last(reason, self._ending.last_bytes(self._source))
        else:
            self.run_in_executor(lambda: self._end_by_function(reason))

    def _end_by_function(self, reason: CloseReason) -> None:
        last = self._ending.last_bytes(self._source)  # it calls the user's function
        self._connections.call_soon(lambda: self._send_last(reason, last))

    def _send_last(self, reason: CloseReason, last: bytes) -> None:
        if self.state not in OVER:
            self.sent.add(0, len(last), 0, time.monotonic())
            self._finish(reason, last)

    def _final_reason(self, reason: CloseReason) -> CloseReason:
        source = self._source
        _release(source)
        if reason is not CloseReason.DONE:
            source.cancel(reason)
        return source.reason or reason

    def release(self) -> None:
        """Close the source, on a thread that may wait: it may close an upstream."""
        self.run_in_executor(self._source.close)


class Feeds:
    """The feeds of this process, with a common tick."""

    totals = NOTHING
    last_write = 0.0

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._open: dict[Feed, None] = {}
        self._waiting: dict[Feed, None] = {}  # those whose clients may have unsent bytes
        self._due = 0.0  # no keep-alive is due before

    def move(self, connection: Connection, state: State) -> None:
        """See :class:`Group`."""
        feed = cast(Feed, connection)
        check_transition(feed.state, state)
        feed.state = state
        if state is State.IN_SYNC:
            self._waiting.pop(feed, None)
        elif state is State.CLOSED:
            self._waiting.pop(feed, None)
            self._open.pop(feed, None)
        else:
            self._waiting[feed] = None
            if state is State.OPENING:
                self._open[feed] = None
                if (keep_alive := feed.settings.keep_alive) is not None:
                    self._due = min(self._due, feed.sent.last + keep_alive)

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """See :class:`Group`."""
        return cast(Feed, connection).pending

    def progressed(self, connection: Connection) -> None:
        """See :class:`Group`."""

    def drained(self, connection: Connection) -> None:
        """See :class:`Group`. Pulls again."""
        if connection.state not in OVER:
            self.move(connection, State.IN_SYNC)
            cast(Feed, connection).flush()

    def take_rest(self, connection: Connection) -> tuple[bytes, int]:
        """See :class:`Group`. Returns no bytes: a feed ends when all were pulled."""
        return b"", 0

    def left(self, connection: Connection) -> None:
        """See :class:`Group`."""
        cast(Feed, connection).release()
        if not self._open:
            self._connections.discard(self)

    def tick(self, now: float) -> None:
        """See :class:`Group`."""
        for feed in list(self._waiting):
            if feed.unsent is not None and feed.unsent.has_stalled(now):
                feed.abort(CloseReason.STALLED)
        if now < self._due:
            return
        due = now + 3600.0
        for feed in list(self._open):
            if (keep_alive := feed.settings.keep_alive) is None:
                continue
            # Not between unsent bytes: a client that accepts those needs no keep-alive.
            if feed.sent.last + keep_alive <= now and feed.state is State.IN_SYNC:
                feed.send_keep_alive()
            due = min(due, max(feed.sent.last, now - keep_alive) + keep_alive)
        self._due = due


def _release(source: Source) -> None:
    source.on_ready = None  # else the two are a cycle for the garbage collector


def feed(source: Source, handover: Handover, record: Record, ending: Ending) -> Feed:
    """See :func:`ssesync.server.detaching.feed`."""
    current = connections()
    group = current.shared_group(Feeds)
    client = Feed(current, handover, group, record, source, ending)
    record.began(client)
    source.on_ready = client.wake
    current.call_soon(lambda: client.begin(handover.head))
    return client
