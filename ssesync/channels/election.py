"""A lease: which one of several processes does what one is enough for. Made of a broker's claims, nothing else.

Time is cut into slots of a few seconds. Who claims a slot has it; the holder of a slot claims the next one in the
middle of its own, long before anybody else asks. A holder that is killed claims no more, and the first slot that nobody
has is another's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["Lease"]

# A claim is made up to a slot before its own begins, and the clocks of machines differ by less than half of one.
_REMEMBERED = 3


class Lease:
    """One process's part in it. :meth:`renew` is for one thread, :meth:`held` for any.

    :param claim: :meth:`Broker.use_once`.
    :param name: what is leased.
    :param seconds: a slot's length, the same in all processes.
    """

    def __init__(self, claim: Callable[[str, float], bool], name: str, seconds: float) -> None:
        self._claim = claim
        self._name = name
        self._seconds = seconds
        self._slots: frozenset[int] = frozenset()

    def forget(self) -> None:
        """Have no slot: in a forked child, which is not who claimed them."""
        self._slots = frozenset()

    def held(self) -> bool:
        """Whether the slot that it is now is ours."""
        return int(time.time() / self._seconds) in self._slots

    def renew(self) -> bool:
        """Claim what is to be claimed now; whether the slot that it is now is ours.

        :raises BrokerError: nobody can tell.
        """
        place = time.time() / self._seconds
        slot = int(place)
        if slot not in self._slots:
            self._slots = frozenset((slot,)) if self._take(slot) else frozenset()
        if slot in self._slots and place - slot >= 0.5 and slot + 1 not in self._slots and self._take(slot + 1):
            self._slots = frozenset((slot, slot + 1))
        return slot in self._slots

    def pause(self) -> float:
        """Seconds until :meth:`renew` is to be called again."""
        place = time.time() / self._seconds
        slot = int(place)
        if slot not in self._slots:
            # Not all at once: of those who ask, one gets it.
            due = slot + 1 + random.uniform(0, 0.1)
        elif slot + 1 in self._slots:
            due = slot + 1.5
        else:
            due = slot + 0.5 if place - slot < 0.5 else slot + 1
        # The clock may have been set meanwhile.
        return max(0.01, min(due - place, 1.5) * self._seconds)

    def _take(self, slot: int) -> bool:
        return self._claim(f"feed:{self._name}:{slot}", _REMEMBERED * self._seconds)
