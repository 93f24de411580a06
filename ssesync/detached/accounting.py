"""How much a detached client was sent: counted by its group for all clients in sync, else by the client."""

from __future__ import annotations

import time
from typing import NamedTuple

__all__ = ["NOTHING", "Sent", "Totals"]


class Totals(NamedTuple):
    """How much was sent."""

    events: int = 0
    bytes: int = 0
    keep_alives: int = 0


#: The totals of a new group.
NOTHING = Totals()


class Sent:
    """How much one client was sent: by itself, and together with its group while it is in sync.

    Only the reactor's thread writes it. Any thread may read it; while the client leaves the group, the group's part may
    be missing for a moment.
    """

    __slots__ = ("_base", "bytes", "events", "keep_alives", "last")

    def __init__(self, size: int) -> None:
        self._base: Totals | None = None  # the group's totals when the client became in sync
        self.events, self.bytes, self.keep_alives = 0, size, 0
        #: When it was last sent something apart from its group, at first its head. Monotonic clock.
        self.last = time.monotonic()

    def add(self, events: int, size: int, keep_alives: int, now: float) -> None:
        """Count what was sent to the client apart from its group."""
        self.events += events
        self.bytes += size
        self.keep_alives += keep_alives
        self.last = now

    def join(self, totals: Totals) -> None:
        """Count what the group is sent from now on.

        :param totals: the group's.
        """
        self._base = totals

    def leave(self, totals: Totals, last: float) -> None:
        """Count what the group was sent up to now, and no more.

        :param totals: the group's.
        :param last: when the group was last sent something.
        """
        base, self._base = self._base or totals, None
        self.add(
            totals.events - base.events,
            totals.bytes - base.bytes,
            totals.keep_alives - base.keep_alives,
            max(self.last, last),
        )

    def total(self, totals: Totals) -> Totals:
        """Add up how much the client was sent.

        :param totals: the group's.
        :return: the client's totals.
        """
        base = self._base or totals
        return Totals(
            totals.events - base.events + self.events,
            totals.bytes - base.bytes + self.bytes,
            totals.keep_alives - base.keep_alives + self.keep_alives,
        )
