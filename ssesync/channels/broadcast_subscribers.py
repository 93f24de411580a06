"""A broker's subscribers as a broadcast group needs them: one that reads for the whole group, and one for each client
that lags. All that a group uses of a subscriber is used here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from ..detached.source import Numbered, Position
from ..errors import CloseReason
from .log import Log
from .message import Message
from .policy import Policy
from .subscriber import Subscriber

__all__ = ["ClientSubscriber", "GroupSubscriber"]

logger = logging.getLogger("ssesync")

# Bytes that are read from the log for a client at a time, about, and events of the first read and of any.
_READ, _FIRST, _PAGE = 256 * 1024, 100, 1000


class _Adapter:
    """What both have in common. :meth:`read_page` is for a thread that may wait, the rest is for the reactor's."""

    __slots__ = ("_subscriber",)

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    @property
    def reads_log(self) -> bool:
        """Whether the log has to be read, or is being read."""
        return self._subscriber.state.reads_log

    @property
    def cursor(self) -> Position:
        """The position after the last message that was polled or read."""
        return self._subscriber.position

    def start(self, position: Position, *, from_log: bool) -> None:
        """Set the position. Any thread.

        :param from_log: whether what comes next is in the log; else it was offered, or will be.
        """
        self._subscriber.start(*position, from_log=from_log)

    def poll(self) -> Sequence[bytes] | CloseReason:
        """Take what is queued.

        :return: that, which is empty if there is nothing or the log has to be read; or why the subscriber has ended.
        """
        items = self._subscriber.poll()
        return self._reason if items is None else items

    @property
    def _reason(self) -> CloseReason:
        return self._subscriber.reason or CloseReason.CANCELLED

    def read_page(self, limit: int) -> list[bytes]:
        """Read the log once.

        :param limit: how many events at most.
        :return: what comes next; empty if the log can't be read now, or the subscriber has ended.
        """
        try:
            return self._subscriber.read(limit)
        except Exception:
            logger.exception("the log can't be read for a detached stream, which is closed")
            self._subscriber.close(CloseReason.ERROR, discard=True)
            return []

    def cancel(self) -> None:
        """Release it. Any thread."""
        self._subscriber.close(CloseReason.CANCELLED, discard=True)


class ClientSubscriber(_Adapter):
    """Serves a client that lags: see :class:`ssesync.detached.source.Subscriber`."""

    __slots__ = ()

    def __init__(self, log: Log, policy: Policy, channels: Collection[str], patterns: Collection[str]) -> None:
        super().__init__(Subscriber(log, policy, channels, patterns))

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes wait for the client."""
        return self._subscriber.pending

    @property
    def position(self) -> Position | None:
        """The position after the last message that the client was given; ``None`` while the log has to be read."""
        return None if self.reads_log else self.cursor

    def offer(self, messages: Sequence[Numbered]) -> CloseReason | None:
        """Queue messages, as far as there is room.

        :return: why the client has to be ended, if so: it is too slow, say.
        """
        return None if self._subscriber.offer(messages) else self._reason  # type: ignore[arg-type]  # a broker's

    def missed(self) -> None:
        """There are messages that were not offered: they are in the log."""
        self._subscriber.missed()

    def restarted(self, position: Position) -> None:
        """The log was started anew, and goes on after this position."""
        self._subscriber.restarted(*position)

    def progressed(self) -> None:
        """The client has taken some of what was sent, so it does read."""
        self._subscriber.touch()

    def read(self) -> list[bytes]:
        """Read what comes next from the log. On a thread that may wait.

        :return: that; empty if the log can't be read now, or the subscriber has ended.
        """
        items = self.read_page(_FIRST)
        # As much as may be at a time: by rounds of small pages, thousands of clients that come back at once while much
        # is published would never get to the log's end.
        while items and self.reads_log and (size := sum(map(len, items))) < _READ:
            more = self.read_page(max(1, min(_PAGE, (_READ - size) * len(items) // size)))
            if not more:
                break
            items += more
        return items


class GroupSubscriber(_Adapter):
    """What the dispatcher feeds on behalf of all clients of a group. It reads the log where they all have the same
    channels: where the log has lost something they are sent a reset, and not ended, as the queue was not full for their
    sake."""

    __slots__ = ()

    def __init__(self, log: Log, policy: Policy, on_ready: Callable[[], object]) -> None:
        super().__init__(Subscriber(log, policy, shared=True))
        self._subscriber.on_ready = on_ready

    def offer(self, messages: Sequence[Message]) -> bool:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        return self._subscriber.offer(messages)

    def restarted(self, epoch: str, position: int) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        self._subscriber.restarted(epoch, position)

    def read(self, channels: Collection[str], patterns: Collection[str]) -> list[bytes]:
        """Read the log once, for clients of these channels. On a thread that may wait.

        :return: what comes next; empty if the log can't be read now, or the subscriber has ended.
        """
        self._subscriber.channels, self._subscriber.patterns = channels, patterns
        return self.read_page(_FIRST)
