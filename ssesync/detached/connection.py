"""A detached client: the connection that the loop has in the server's stead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CloseReason
from ..server.ending import encode_error, finishes
from ..server.margins import come_back
from ..server.stats import StreamStats
from ..settings import Settings
from ..wire.chunked import LAST_CHUNK, to_chunk
from .sending import AGAIN

if TYPE_CHECKING:
    from .broadcast import Group
    from .loop import Loop

__all__ = ["NOTHING", "Connection", "Handover", "Record", "Totals"]

# Bytes of a rest that are handed to the kernel at a time: copied for that, while what waits is shared by all clients.
_PIECE = 65536


@dataclass(frozen=True, slots=True)
class Handover:
    """All that it takes to serve a client from now on: plain values, and no way back to who gave them."""

    fd: int
    """The client's socket. Whoever has this owns it."""
    chunked: bool
    """Whether the answer has the chunked transfer coding (RFC 9112, section 7.1), or ends with the connection."""
    head: bytes = field(repr=False)  # it has cookies
    """What comes first on the wire: status line, headers, opening."""
    name: str
    """What log lines call the stream."""
    settings: Settings
    began: float
    """When, on the monotonic clock."""
    given: int
    """Bytes of the stream that are in ``head``."""
    orderly: bool = True
    """Whether the client comes back for what it misses, so that its answer may end as if it were whole."""


class Record(Protocol):
    """Who keeps account of a detached stream."""

    def began(self, connection: Connection) -> object:
        """It is about to be served. On the server's thread."""

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> object:
        """It has ended. On the loop's thread: this must not wait."""


class Totals(NamedTuple):
    """What all in a group have been given together."""

    events: int = 0
    bytes: int = 0
    keep_alives: int = 0


#: What a new group has been given.
NOTHING = Totals()


class Connection:
    """One client. :meth:`cancel` and :meth:`stop` may be called from any thread, and so may what only looks; the rest
    belongs to the loop's.

    There are thousands, so each is small: what it has in common with others is its group's.
    """

    __slots__ = (
        "__weakref__", "_base", "_bytes", "_events", "_keep_alives", "_loop", "_rest", "_since", "_taken", "born",
        "chunked", "early", "ending", "farewell", "fd", "group", "member", "name", "orderly", "reason", "record",
        "settings", "written",
    )  # fmt: skip

    def __init__(self, loop: Loop, handover: Handover, group: Group, record: Record) -> None:
        self._loop = loop
        #: What log lines call the stream.
        self.name = handover.name
        self.fd = handover.fd
        self.chunked = handover.chunked
        self.settings = handover.settings
        self.orderly = handover.orderly
        self.born = handover.began
        self.group = group
        self.record = record
        #: Why it has ended.
        self.reason: CloseReason | None = None
        #: Why it ends as soon as all that waits is sent.
        self.ending: CloseReason | None = None
        self.farewell = b""
        #: What was asked of it before the loop had it.
        self.early: Callable[[], object] | None = None
        self._rest: memoryview | None = None
        self._since = self._taken = 0.0  # when it began to wait for the client, and bytes since then
        self._base = NOTHING  # the group's totals when it joined
        self._events, self._bytes, self._keep_alives = 0, handover.given, 0  # what it was given besides
        #: When it was last given something that not all in the group were given: its head first. Monotonic clock.
        self.written = time.monotonic()
        #: What the group knows of this client. For the group alone.
        self.member: Any = None

    # Any thread.

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.reason is not None

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End at once: what waits is dropped."""
        why = CloseReason(reason)
        self._loop.call_soon(lambda: self._loop.end(self, why))

    #: What the dispatcher calls.
    close = cancel

    def stop(self, reason: CloseReason | str = CloseReason.SHUTDOWN, last: bytes = b"") -> None:
        """End after what waits, then ``last``, then a reconnection time, or an error event if it can't resume."""
        why = CloseReason(reason)
        self._loop.call_soon(lambda: self._loop.stop(self, why, last))

    def tell(self, call: Callable[[], object]) -> None:
        """Call on a thread on which others' code may take its time."""
        self._loop.tell(call)

    @property
    def finishes(self) -> bool:
        """Whether the stream goes on to its own end, for a while, when the process stops."""
        return finishes(self.settings, self.orderly)

    @property
    def stats(self) -> StreamStats:
        """What the stream came to so far."""
        base = self._base
        now = self.group.totals if self.group.is_in_step(self) else base
        return StreamStats(
            now.events - base.events + self._events,
            now.bytes - base.bytes + self._bytes,
            now.keep_alives - base.keep_alives + self._keep_alives,
            time.monotonic() - self.born,
        )

    @property
    def last_write(self) -> float:
        """When it was last given something, on the monotonic clock."""
        return max(self.written, self.group.last_write) if self.group.is_in_step(self) else self.written

    def describe(self) -> dict[str, Any]:
        """What ``streams.snapshot()`` tells of this stream."""
        stats, rest = self.stats, self._rest
        events, size = self.group.pending_of(self)
        return {
            "id": id(self),
            "name": self.name,
            "age": round(stats.seconds, 3),
            "events": stats.events,
            "bytes": stats.bytes,
            "pending_events": events,
            "pending_bytes": size + (0 if rest is None else len(rest)),
            "last_write": round(time.monotonic() - self.last_write, 3),
            "tier": "detached",
            "senses_disconnect": self.settings.sense_disconnect,
        }

    # The loop's thread.

    def join(self) -> None:
        """From now on what the group is given counts as given to this."""
        self._base = self.group.totals

    def part(self) -> None:
        """What the group is given from now on does not."""
        now, base, self._base = self.group.totals, self._base, NOTHING
        self.written = max(self.written, self.group.last_write)
        self.count(now.events - base.events, now.bytes - base.bytes, now.keep_alives - base.keep_alives)

    def count(self, events: int, size: int, keep_alives: int) -> None:
        """So much was given to this client, and not to all in the group."""
        self._events += events
        self._bytes += size
        self._keep_alives += keep_alives

    @property
    def waits(self) -> bool:
        """Whether the client must take something before it can be given more."""
        return self._rest is not None

    def give(self, data: bytes, events: int = 0, keep_alives: int = 0) -> bool:
        """Send events to this client alone; whether it has taken all of them."""
        self.count(events, len(data), keep_alives)
        self.written = time.monotonic()
        return self.put(to_chunk(data) if self.chunked else data)

    def put(self, wire: bytes) -> bool:
        """Send bytes as they are, after what waits, and keep what is not taken; whether all was."""
        if self._rest is not None:
            self._rest = memoryview(bytes(self._rest) + wire)
            return False
        return self.keep(wire, self._loop.send(self.fd, wire, len(wire)))

    def keep(self, wire: bytes, sent: int) -> bool:
        """So much of these bytes was taken: keep the rest; whether there is none."""
        if sent == len(wire):
            return True
        if sent < 0 and sent not in AGAIN:
            self._loop.end(self, CloseReason.CLIENT_GONE)
            return False
        self._rest = memoryview(wire)[max(0, sent) :]
        self._since, self._taken = time.monotonic(), 0.0
        self._loop.await_room(self)
        return False

    def go_on(self) -> bool:
        """The client can take more; whether it has taken all that waited."""
        while self._rest is not None:
            piece = bytes(self._rest[:_PIECE])
            sent = self._loop.send(self.fd, piece, len(piece))
            if sent < 0 and sent not in AGAIN:
                self._loop.end(self, CloseReason.CLIENT_GONE)
                return False
            taken = max(0, sent)
            self._taken += taken
            if self._taken >= _PIECE:
                self._since, self._taken = time.monotonic(), 0.0
            self._rest = self._rest[taken:] if taken < len(self._rest) else None
            if taken < len(piece):
                return False
        return True

    def has_stalled(self, now: float) -> bool:
        """Whether the client has taken too long for 64 kB."""
        timeout = self.settings.send_timeout
        return self._rest is not None and timeout is not None and now - self._since > timeout

    def last_words(self, reason: CloseReason) -> bytes:
        """What comes last: a reconnection time, or the error event."""
        return come_back(self.settings) if self.orderly else encode_error(self.settings, reason, None, self.name)

    def bid_farewell(self, last: bytes) -> bool:
        """Send the last bytes, or have them sent when the rest is; whether all is sent."""
        self.farewell = to_chunk(last) + (LAST_CHUNK if self.orderly else b"") if self.chunked else last
        return self._rest is None and self.finish()

    def finish(self) -> bool:
        """What waited is sent, so now the last bytes, unless they were what waited; whether all is sent."""
        farewell, self.farewell = self.farewell, LAST_CHUNK
        return farewell is LAST_CHUNK or self.put(farewell)
