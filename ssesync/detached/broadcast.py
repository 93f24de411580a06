"""Detached clients that are served together."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..errors import CloseReason
from ..wire.chunked import to_chunk
from ..wire.encoder import KEEP_ALIVE
from .connection import NOTHING, Connection, Totals

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ["Group"]

logger = logging.getLogger("ssesync")


class Group:
    """Clients that get the same bytes, all of them or some: what they are given is made once, and is one send for each.

    A client that has not taken all of it leaves the step, and comes back by itself. What becomes of it meanwhile is for
    a subclass to say. All of it on the loop's thread.
    """

    def __init__(self, loop: Loop, keep_alive: float | None) -> None:
        self.loop = loop
        self.keep_alive = keep_alive
        #: When all in step were last given something.
        self.last_write = time.monotonic()
        #: What all in step were given together. What only some were given is counted by each.
        self.totals = NOTHING
        self._in_step: dict[int, Connection] = {}
        self._raw: set[int] = (
            set()
        )  # those without the chunked coding: behind nginx's defaults, which ask with HTTP/1.0
        self._due = 0.0  # before this, nobody has been silent for long enough

    def is_in_step(self, connection: Connection) -> bool:
        """Whether a client gets what is given to the group."""
        return self._in_step.get(connection.fd) is connection

    def step_in(self, connection: Connection) -> None:
        """From now on a client gets what is given to the group."""
        connection.join()
        self._in_step[connection.fd] = connection
        if self.keep_alive is not None:
            self._due = min(self._due, connection.last_write + self.keep_alive)
        if not connection.chunked:
            self._raw.add(connection.fd)

    def step_out(self, connection: Connection) -> None:
        """From now on it does not."""
        if self.is_in_step(connection):
            connection.part()
            del self._in_step[connection.fd]
            self._raw.discard(connection.fd)

    def give_all(self, data: bytes, events: int, keep_alives: int = 0) -> None:
        """Send to all in step. Those who can't take all of it step out, see :meth:`fell_behind`."""
        self.give(self._in_step, data, events, keep_alives)

    def give(self, fds: Collection[int], data: bytes, events: int, keep_alives: int = 0) -> None:
        """Send to some of those in step, by their descriptors. Those who can't take all of it step out."""
        now = time.monotonic()
        if len(fds) == len(self._in_step):
            # To count it once for all is what makes ten thousand cost the same as one.
            totals = self.totals
            self.totals = Totals(totals.events + events, totals.bytes + len(data), totals.keep_alives + keep_alives)
            self.last_write = now
        else:
            for fd in fds:
                connection = self._in_step[fd]
                connection.count(events, len(data), keep_alives)
                connection.written = now
        if len(self._raw) in (0, len(self._in_step)):
            self._send(data if self._raw else to_chunk(data), list(fds))
            return
        chunked, raw = [fd for fd in fds if fd not in self._raw], [fd for fd in fds if fd in self._raw]
        for wire, those in ((to_chunk(data), chunked), (data, raw)):
            if those:
                self._send(wire, those)

    def _send(self, wire: bytes, fds: Iterable[int]) -> None:
        for fd, sent in self.loop.send_to_all(fds, wire):
            connection = self._in_step[fd]
            try:
                self._fell_short(connection, wire, sent)
            except Exception:
                logger.exception("a detached stream ends, as its client could not be waited for")
                self.loop.end(connection, CloseReason.ERROR)

    def _fell_short(self, connection: Connection, wire: bytes, sent: int) -> None:
        self.step_out(connection)
        if not connection.keep(wire, sent) and not connection.closed:
            self.fell_behind(connection)

    def tick(self, now: float) -> None:
        """Twice a second: send a keep-alive to those in step who were given nothing for so long."""
        if self.keep_alive is None or now < self._due:
            return
        limit = now - self.keep_alive
        if self.last_write > limit:
            self._due = self.last_write + self.keep_alive
            return
        last = {fd: connection.written for fd, connection in self._in_step.items()}
        silent = [fd for fd, written in last.items() if written <= limit]
        # The next to be silent for so long is one of the others, or one of these.
        self._due = min([now, *(written for written in last.values() if written > limit)]) + self.keep_alive
        if silent:
            self.give(silent, KEEP_ALIVE, 0, 1)

    # For a subclass.

    def fell_behind(self, connection: Connection) -> None:
        """A client has stepped out, since it can't take more."""

    def caught_up(self, connection: Connection) -> None:
        """A client has taken all that waited for it."""

    def made_progress(self, connection: Connection) -> None:
        """A client has taken some of what waits for it."""

    def left(self, connection: Connection) -> None:
        """A client has ended, for its ``reason``."""

    def last_for(self, connection: Connection) -> tuple[bytes, int]:
        """What a client that ends is still to get, and how many events that is."""
        return b"", 0

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """How many events and bytes wait for a client. From any thread."""
        return 0, 0
