"""Presence: a process announces to the others how many subscribers each of its channels has."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ...errors import BrokerError
from ...text import escape
from ..dispatcher import Dispatcher

__all__ = ["EXPIRY", "Presence"]

logger = logging.getLogger("ssesync")

#: Seconds without a heartbeat after which a process counts as ended.
EXPIRY = 30
# Seconds between two announcements of changed numbers, and between heartbeats.
_ANNOUNCE, _HEARTBEAT = 0.2, 10.0


class Presence:
    """The announcements of one process. Used on the listener's thread.

    :param dispatcher: the dispatcher of the process.
    :param send: called with the number of subscribers by channel, and with whether a heartbeat is due; sends both.
        Returns whether the earlier announcements are still stored.
    """

    def __init__(self, dispatcher: Dispatcher, send: Callable[[dict[str, int], bool], bool]) -> None:
        self._dispatcher = dispatcher
        self._send = send
        #: Whether anything was announced.
        self.known = False
        self._changed: dict[str, int] = {}  # not announced yet: the number of subscribers by channel
        self._announced = 0.0
        self._alive = time.monotonic()

    def announce(self) -> None:
        """Announce changed numbers, or send a heartbeat, if either is due.

        A broker's error is logged and not raised: events must not wait for this.
        """
        self._changed.update(self._dispatcher.take_changed())
        now = time.monotonic()
        has_changed = bool(self._changed) and now - self._announced >= _ANNOUNCE
        alive = now - self._alive >= _HEARTBEAT
        if not has_changed and not (alive and self.known):
            return
        if has_changed:
            self._announced = now
        try:
            is_known = self._send(self._changed, alive)
        except BrokerError as error:
            logger.debug("can't announce this process's subscribers to others: %s", escape(error))
            return
        self.known = True
        if alive:
            self._alive = now
        self._changed = {} if is_known else self._dispatcher.take_changed(every=True)
