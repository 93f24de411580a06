"""When to announce to other processes who subscribes here, and what."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from ...errors import BrokerError
from ...text import escape
from ..dispatcher import Dispatcher

__all__ = ["EXPIRY", "Presence", "best_effort"]

logger = logging.getLogger("ssesync")

#: Seconds without a sign of life after which a process counts as ended.
EXPIRY = 30
# Seconds between two announcements of what has changed, and between signs of life.
_ANNOUNCE, _SIGN_OF_LIFE = 0.2, 10.0


class Presence:
    """What one process announces. Used on the listener's thread."""

    def __init__(self) -> None:
        #: What other processes don't know yet: the number of subscribers by channel.
        self.changed: dict[str, int] = {}
        #: Whether they know anything.
        self.known = False
        self._announced = 0.0
        self._alive = time.monotonic()

    def due(self, dispatcher: Dispatcher) -> bool:
        """Whether it is time to announce what has changed, or at least that the process is there.

        :param dispatcher: the dispatcher of this process.
        :return: whether it is.
        """
        self.changed.update(dispatcher.take_changed())
        now = time.monotonic()
        if self.changed and now - self._announced >= _ANNOUNCE:
            self._announced = now
            return True
        return self.known and self.sign_of_life_due()

    def sign_of_life_due(self) -> bool:
        """Whether it is time for a sign of life.

        :return: whether it is.
        """
        return time.monotonic() - self._alive >= _SIGN_OF_LIFE

    def announced(self, *, alive: bool) -> None:
        """Note that other processes know now.

        :param alive: the announcement was a sign of life, too.
        """
        self.changed = {}
        self.known = True
        if alive:
            self._alive = time.monotonic()


@contextlib.contextmanager
def best_effort() -> Iterator[None]:
    """Suppress the broker's errors in an announcement, for which events must not wait.

    :return: a context manager.
    """
    try:
        yield
    except BrokerError as error:
        logger.debug("can't announce this process's subscribers to others: %s", escape(error))
