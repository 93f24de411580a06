"""What fails again and again: told once, and waited for ever longer."""

from __future__ import annotations

import logging
import random

from ..errors import BrokerError, SSEError
from ..text import escape

__all__ = ["Trouble"]

logger = logging.getLogger("ssesync")


class Trouble:
    """One thing that may fail, on the thread that needs it.

    :param what: what the log lines call it.
    :param delays: seconds between attempts, the first and the longest, doubled from the one to the other.
    """

    def __init__(self, what: str, delays: tuple[float, float]) -> None:
        self._what = what
        self._soonest, self._latest = delays
        self._delay = 0.0

    def tell(self, error: Exception | None, *, then: str = "trying again until it works") -> float:
        """It failed, or without an error it ended; seconds to wait."""
        if not self._delay and (error is None or isinstance(error, SSEError)):
            # Of a reader's errors the name alone: a message may hold what stands in an address.
            told = str(error) if isinstance(error, BrokerError) else type(error).__name__
            outcome = "ended" if error is None else f"failed ({told})"
            logger.warning("%s %s; %s", escape(self._what), escape(outcome), escape(then))
        elif not self._delay:
            logger.error("%s failed; %s", escape(self._what), escape(then), exc_info=error)
        self._delay = min(max(2 * self._delay, self._soonest), self._latest)
        return self._delay * random.uniform(0.5, 1)

    def over(self) -> None:
        """It works."""
        if self._delay:
            self._delay = 0.0
            logger.warning("%s: it works again", escape(self._what))
