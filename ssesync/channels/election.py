"""Leader election: chooses one of several processes for a task. It uses a broker's claims, nothing else.

Time is divided into slots of a few seconds. The process that claims a slot is the leader for its length. A leader
claims the next slot in the middle of its own, long before any other process tries to. A leader that is killed claims no
more slots, and the first slot that it has not claimed makes another process the leader.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["LeaderElection"]

# How many slots a claim is remembered for. It is made up to a slot before its own begins, and the clocks of machines
# differ by less than half of one.
_REMEMBERED = 3


class LeaderElection:
    """One process's part in the election. :meth:`renew` is for one thread, :meth:`is_leader` for any.

    :param claim: :meth:`Broker.use_once`.
    :param name: the name of the leader's task.
    :param seconds: a slot's length, the same in all processes.
    """

    def __init__(self, claim: Callable[[str, float], bool], name: str, seconds: float) -> None:
        self._claim = claim
        self._name = name
        self._seconds = seconds
        self._slots: frozenset[int] = frozenset()  # claimed by this process

    def reset(self) -> None:
        """Forget all slots: in a forked child, which has claimed none."""
        self._slots = frozenset()

    def is_leader(self) -> bool:
        """Whether this process has claimed the current slot."""
        return int(time.time() / self._seconds) in self._slots

    def renew(self) -> bool:
        """Claim the current slot or, in the second half of one that is claimed, the next.

        :return: whether this process is the leader.
        :raises BrokerError: the log can't be reached or used.
        """
        now = time.time() / self._seconds
        slot = int(now)
        if slot not in self._slots:
            self._slots = frozenset((slot,)) if self._claim_slot(slot) else frozenset()
        if slot in self._slots and now - slot >= 0.5 and slot + 1 not in self._slots and self._claim_slot(slot + 1):
            self._slots = frozenset((slot, slot + 1))
        return slot in self._slots

    def renew_after(self) -> float:
        """When to renew next.

        :return: seconds from now.
        """
        now = time.time() / self._seconds
        slot = int(now)
        if slot not in self._slots:
            # At random, as only one of the processes that claim a slot gets it.
            due = slot + 1 + random.uniform(0, 0.1)
        elif slot + 1 in self._slots:
            due = slot + 1.5
        else:
            due = slot + 0.5 if now - slot < 0.5 else slot + 1
        # The clock may have been set meanwhile.
        return max(0.01, min(due - now, 1.5) * self._seconds)

    def _claim_slot(self, slot: int) -> bool:
        return self._claim(f"feed:{self._name}:{slot}", _REMEMBERED * self._seconds)
