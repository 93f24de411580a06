"""Received: the head, events, comments and bytes of an answer that a test has received."""

from __future__ import annotations

from collections import deque
from wsgiref.headers import Headers

from ..errors import excerpt
from ..event import Event, ReceivedEvent
from ..wire.http import is_event_stream

__all__ = ["READ_AHEAD", "Received"]

#: The most events, and bytes of them, that are read before the test takes them.
READ_AHEAD = 256, 65536
# The most bytes of a body, and the most comments, that are kept.
_KEPT_BYTES = 1024 * 1024
_KEPT_COMMENTS = 10_000


class Received:
    """The head, events, comments and bytes of one answer.

    The thread that reads adds to it, without a lock, so that no signal handler can block it. Other threads read it, and
    one at a time takes events.
    """

    def __init__(self) -> None:
        #: The status line without the protocol, empty before the answer.
        self.status = ""
        self.headers = Headers([])
        self.pending: deque[ReceivedEvent] = deque()
        self.comments: deque[str] = deque(maxlen=_KEPT_COMMENTS)
        self.body = bytearray()
        #: The last event ID and the reconnection time in force after all that was received.
        self.last_event_id = ""
        self.retry: int | None = None
        self._count = 0
        self._recent: deque[ReceivedEvent] = deque(maxlen=3)
        self._added_bytes = self._taken_bytes = 0

    @property
    def is_stream(self) -> bool:
        """Whether the answer is an event stream."""
        return self.status.startswith("200") and is_event_stream(", ".join(self.headers.get_all("Content-Type")))

    @property
    def is_full(self) -> bool:
        """Whether the client must not read more before the test takes events."""
        return len(self.pending) >= READ_AHEAD[0] or self._added_bytes - self._taken_bytes >= READ_AHEAD[1]

    def begin(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Keep the head of the answer.

        :param status: the status line without the protocol.
        :param headers: the headers.
        """
        self.headers = Headers(headers)
        self.status = status

    def keep(self, data: bytes) -> None:
        """Keep bytes of the body, 1 MB in all.

        :param data: the bytes.
        """
        self.body += data[: max(0, _KEPT_BYTES - len(self.body))]

    def add(self, events: list[Event], last_event_id: str, retry: int | None) -> None:
        """Keep events.

        :param events: the events; a comment is an event without data.
        :param last_event_id: the last event ID in force after them.
        :param retry: the reconnection time in force after them, in milliseconds.
        """
        for event in events:
            if not isinstance(event, ReceivedEvent):
                self.comments.append(event.comment or "")
            else:
                self._added_bytes += len(event.data)
                self._recent.append(event)
                self._count += 1
                self.pending.append(event)
        self.last_event_id, self.retry = last_event_id, retry

    def take(self) -> ReceivedEvent | None:
        """Take the oldest event.

        :return: the event; ``None`` if all were taken.
        """
        if not self.pending:
            return None
        event = self.pending.popleft()
        self._taken_bytes += len(event.data)
        return event

    def __str__(self) -> str:
        """The head, and the events, comments or bytes that were received, for messages."""
        parts = [f"{self.status}, {self.headers.get('Content-Type') or 'no type'}"]
        if self.is_stream:
            recent, comments = list(self._recent), list(self.comments)
            last = ", the last: " + ", ".join(map(repr, recent)) if recent else ""
            parts.append(f"{_number(self._count, 'event')} came{last}")
            last = f", the last: {comments[-1]!r}" if comments else ""
            parts.append(f"{_number(len(comments), 'comment')} came{last}")
        else:
            parts.append(f"the body begins with {excerpt(bytes(self.body), 200)}")
        return "; ".join(parts)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
