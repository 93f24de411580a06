"""The revocations of the last minute, for clients that come from another process.

A client may come from a process that has not seen a revocation yet, which this process saw before the client came. So
the revocations after the position up to which the other process has handled the log are compared with the client.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from .dispatcher import Registration

__all__ = ["Revocations"]

# Seconds for which a revocation is kept: far longer than any process lags behind the log and still passes clients on.
_SECONDS = 60.0
# How many are kept.
_MOST = 1000


class _Revocation(NamedTuple):
    seq: int
    key: str
    channel: str | None
    at: float


class Revocations:
    """See the module. Any thread."""

    def __init__(self) -> None:
        self._kept: deque[_Revocation] = deque(maxlen=_MOST)
        self._forgotten = -1  # revocations up to this number may be forgotten

    def note(self, seq: int, key: str, channel: str | None) -> None:
        """Keep a revocation, before it is carried out.

        :param seq: its number in the log.
        :param key: the key of the subscriptions that are revoked.
        :param channel: only those with this channel; ``None``: all.
        """
        now = time.monotonic()
        while self._kept and (self._kept[0].at < now - _SECONDS or len(self._kept) == _MOST):
            self._forgotten = self._kept.popleft().seq
        self._kept.append(_Revocation(seq, key, channel, now))

    def include(self, registration: Registration, since: int) -> bool:
        """Whether a client was revoked after a position: true also if revocations after it are forgotten.

        :param registration: the client's.
        :param since: all revocations up to this number were carried out before.
        :return: whether it was.
        """
        if registration.key is None:
            return False
        return self._forgotten > since or any(
            each.seq > since
            and each.key == registration.key
            and (each.channel is None or registration.covers(each.channel))
            for each in list(self._kept)
        )
