"""A detached client that has a queue of its own, since it does not take what all get, or not yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..errors import CloseReason
from .frame import Frame
from .subscription import Subscription

__all__ = ["Lagging", "read_log"]

logger = logging.getLogger("ssesync")

# Bytes that are read from the log for a client at a time, about, and events of one reading at most.
_READ, _PAGE = 256 * 1024, 1000


class Lagging:
    """What is kept for such a client: the same queue, policy and readings of the log as for a served one."""

    __slots__ = ("busy", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        #: Whether a helper reads the log for it.
        self.busy = False

    def offer(self, frames: Sequence[Frame]) -> bool:
        """Keep what is published meanwhile, as far as there is room; whether the client may stay."""
        inbox = self.subscription.inbox
        if self.busy:
            inbox.still_reads()  # it waits for this process
        return inbox.offer_all(frames)

    def read(self) -> list[bytes] | None:
        """What the log has for the client next; ``None`` at its end. On a reader's thread."""
        subscription = self.subscription
        items = read_log(subscription)
        # As much as may be at a time: by rounds of small pages, thousands who come back at once while much is published
        # would never get there.
        while items and subscription.inbox.behind and (size := sum(map(len, items))) < _READ:
            subscription.page = max(1, min(_PAGE, (_READ - size) * len(items) // size))
            more = read_log(subscription)
            if not more:
                break
            items += more
        return items


def read_log(subscription: Subscription) -> list[bytes] | None:
    """What the log has for a subscription; ``None`` at its end. On a reader's thread."""
    try:
        return subscription.take(0)
    except Exception:
        logger.exception("the log can't be read for a detached stream, which ends")
        subscription.cancel(CloseReason.ERROR)
        return None
