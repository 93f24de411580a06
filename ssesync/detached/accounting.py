"""How much a detached client was sent: counted once for all in sync, and by each client what only some were sent."""

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

    Written on the reactor's thread alone. Any thread may read it; then what the group was sent may be missing for the
    moment in which the client leaves the group.
    """

    __slots__ = ("_base", "bytes", "events", "keep_alives", "last")

    def __init__(self, size: int) -> None:
        self._base: Totals | None = None  # the group's totals when the client became in sync
        self.events, self.bytes, self.keep_alives = 0, size, 0
        #: When it was last sent something that not all of the group were sent, its head first. Monotonic clock.
        self.last = time.monotonic()

    def add(self, events: int, size: int, keep_alives: int, now: float) -> None:
        """This much was sent to the client, and not to all of its group."""
        self.events += events
        self.bytes += size
        self.keep_alives += keep_alives
        self.last = now

    def join(self, totals: Totals) -> None:
        """From these totals of the group on, what the group is sent is sent to the client."""
        self._base = totals

    def leave(self, totals: Totals, last: float) -> None:
        """Up to these totals of the group, which was last sent something at ``last``, it was."""
        base, self._base = self._base or totals, None
        self.add(
            totals.events - base.events,
            totals.bytes - base.bytes,
            totals.keep_alives - base.keep_alives,
            max(self.last, last),
        )

    def total(self, totals: Totals) -> Totals:
        """Add up.

        :param totals: the group's.
        :return: how much the client was sent in all.
        """
        base = self._base or totals
        return Totals(
            totals.events - base.events + self.events,
            totals.bytes - base.bytes + self.bytes,
            totals.keep_alives - base.keep_alives + self.keep_alives,
        )
