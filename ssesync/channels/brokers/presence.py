"""When to tell other processes who subscribes here, and what."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from ...errors import BrokerError
from ...text import escape
from ..dispatcher import Dispatcher

__all__ = ["GONE", "Presence", "as_far_as_it_works"]

logger = logging.getLogger("ssesync")

#: Seconds after which a process that gives no sign of life counts as gone.
GONE = 30
# Seconds between two times of telling what has changed, and between signs of life.
_TELL, _SIGN_OF_LIFE = 0.2, 10.0


class Presence:
    """Of one process. Used on the listener's thread."""

    def __init__(self) -> None:
        #: What others don't know yet: the number of subscribers by channel.
        self.untold: dict[str, int] = {}
        #: Whether others know anything.
        self.known = False
        self._told = 0.0
        self._alive = time.monotonic()

    def due(self, dispatcher: Dispatcher) -> bool:
        """Whether it is time to tell what is untold, or at least that the process is there."""
        self.untold.update(dispatcher.take_changed())
        now = time.monotonic()
        if self.untold and now - self._told >= _TELL:
            self._told = now
            return True
        return self.known and self.gives_sign_of_life()

    def gives_sign_of_life(self) -> bool:
        """Whether it is time for one."""
        return time.monotonic() - self._alive >= _SIGN_OF_LIFE

    def told(self, *, alive: bool) -> None:
        """Others know now."""
        self.untold = {}
        self.known = True
        if alive:
            self._alive = time.monotonic()


@contextlib.contextmanager
def as_far_as_it_works() -> Iterator[None]:
    """For telling others: events must not wait for that."""
    try:
        yield
    except BrokerError as error:
        logger.debug("can't tell other processes who subscribes: %s", escape(error))
