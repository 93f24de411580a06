"""The figures of detached clients: counted by the group for all clients in sync, else by each client."""

from __future__ import annotations

import time
from typing import NamedTuple

__all__ = ["NOTHING", "Sent", "Totals"]


class Totals(NamedTuple):
    """Figures of a group or a client."""

    events: int = 0
    bytes: int = 0
    keep_alives: int = 0


#: The totals of a new group.
NOTHING = Totals()


class Sent:
    """The figures of one client: of its own sends, and of its group's while it is in sync.

    Only the reactor's thread writes it. Any thread may read it; while the client leaves the group, the group's part may
    be missing for a moment.
    """

    __slots__ = ("_base", "bytes", "events", "keep_alives", "last")

    def __init__(self, size: int) -> None:
        self._base: Totals | None = None  # the group's totals when the client became in sync
        self.events, self.bytes, self.keep_alives = 0, size, 0
        #: When bytes were last sent to it alone, at first its head. Monotonic clock.
        self.last = time.monotonic()

    def add(self, events: int, size: int, keep_alives: int, now: float) -> None:
        """Count a send to the client alone."""
        self.events += events
        self.bytes += size
        self.keep_alives += keep_alives
        self.last = now

    def restore(self, events: int, size: int, keep_alives: int, last: float) -> None:
        """Continue the figures of another process.

        :param last: when bytes were last sent, on this process's monotonic clock.
        """
        self.events, self.bytes, self.keep_alives, self.last = events, size, keep_alives, last

    def join(self, totals: Totals) -> None:
        """Count the group's sends from now on.

        :param totals: the group's.
        """
        self._base = totals

    def leave(self, totals: Totals, last: float) -> None:
        """Count the group's sends up to now, and no later ones.

        :param totals: the group's.
        :param last: the time of the group's last send.
        """
        base, self._base = self._base or totals, None
        self.add(
            totals.events - base.events,
            totals.bytes - base.bytes,
            totals.keep_alives - base.keep_alives,
            max(self.last, last),
        )

    def total(self, totals: Totals) -> Totals:
        """Add up the client's figures.

        :param totals: the group's.
        :return: the client's totals.
        """
        base = self._base or totals
        return Totals(
            totals.events - base.events + self.events,
            totals.bytes - base.bytes + self.bytes,
            totals.keep_alives - base.keep_alives + self.keep_alives,
        )
