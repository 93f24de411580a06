"""The revocations of the last minute, for clients that come from another process.

A client may come from a process that has not seen a revocation yet, which this process saw before the client came. So
the revocations after the position up to which the other process has handled the log are compared with the client. A
process that began to listen after that position reads them in the log.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..detached.source import Position
from .dispatcher import Registration
from .message import CONTROL

if TYPE_CHECKING:
    from .log import Log

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
    """See the module. Any thread.

    :param log: has the revocations of the time before this process began to listen.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.begin("", -1)

    def begin(self, epoch: str, seq: int) -> None:
        """Note only revocations after a position: this process begins to listen there, or has lost earlier ones.

        :param epoch: of the log. Revocations of an earlier log are forgotten.
        :param seq: the number of the position.
        """
        self._kept: deque[_Revocation] = deque(maxlen=_MOST)
        self._forgotten = -1  # revocations up to this number may be forgotten
        self._begun = Position(epoch, seq)  # all later ones were noted

    def note(self, seq: int, control: Mapping[str, Any]) -> None:
        """Keep a revocation, before it is carried out.

        :param seq: its number in the log.
        :param control: the message: the key of the subscriptions that are revoked, and their channel, if only those
            with this channel are.
        """
        now, kept = time.monotonic(), self._kept
        while kept and (kept[0].at < now - _SECONDS or len(kept) == _MOST):
            self._forgotten = max(self._forgotten, kept.popleft().seq)
        kept.append(_Revocation(seq, control["revoke"], control.get("channel"), now))

    def include(self, registration: Registration, since: Position) -> bool:
        """Whether a client was revoked after a position: true also if revocations after it are not known. May read the
        log.

        :param registration: the client's.
        :param since: all revocations up to here were carried out before.
        :return: whether it was.
        :raises BrokerError: the log can't be read.
        """
        if registration.key is None:
            return False
        if not self._read(since) or self._forgotten > since.seq:
            return True
        return any(
            each.seq > since.seq
            and each.key == registration.key
            and (each.channel is None or registration.covers(each.channel))
            for each in list(self._kept)
        )

    def _read(self, since: Position) -> bool:
        """Read the revocations after a position, up to the one at which this process began to listen. The result:
        whether all are known."""
        begun, after = self._begun, since.seq
        if since.epoch != begun.epoch:
            return False
        while after < begun.seq:
            page = self._log.read(since.epoch, after, [CONTROL], [], _MOST)
            if page.lost:
                return False
            for message in page.messages:
                control = json.loads(message.event.data or "{}")
                if message.seq <= begun.seq and "revoke" in control:
                    self.note(message.seq, control)
            after = begun.seq if page.complete else page.messages[-1].seq
        if since.seq < begun.seq and self._begun is begun:
            self._begun = since
        return True
