"""Scripts of a :class:`FakeSSEServer`: the steps of an answer, and :class:`Answer`, which makes them."""

from __future__ import annotations

import http
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from typing import Any, Literal

from ..event import Event
from ..wire.chunked import LAST_CHUNK, to_chunk
from ..wire.encoder import KEEP_ALIVE, encode, encode_comment
from .errors import ScriptError

__all__ = [
    "CHUNKED",
    "FIN",
    "HOLD",
    "LAST_CHUNK",
    "RST",
    "Answer",
    "Pause",
    "Step",
    "Steps",
    "chunk",
    "chunked",
    "head",
]


class Step(Enum):
    """A step of a script other than sending."""

    FIN = auto()
    """End the connection in order."""
    RST = auto()
    """Cut the connection: the client's reads fail with ``ECONNRESET``."""
    HOLD = auto()
    """Stall: keep the connection open in silence until the client leaves or the server is closed."""


FIN, RST, HOLD = Step.FIN, Step.RST, Step.HOLD


@dataclass(frozen=True)
class Pause:
    """A step that waits, in real time. It ends early when the server is closed."""

    seconds: float
    """How long."""


_Signal = threading.Event | threading.Semaphore

#: The steps of one answer: ``bytes`` are sent as they are, an :class:`ssesync.Event` is encoded; the server waits for a
#: ``threading.Event`` or ``Semaphore`` (the test's handshake); see :class:`Pause` and :class:`Step` for the others.
Steps = Iterable[bytes | Event | threading.Event | threading.Semaphore | Pause | Step]

#: The header of a chunked body.
CHUNKED = "Transfer-Encoding: chunked"


def head(
    *headers: str, status: str = "200 OK", content_type: str | None = "text/event-stream", version: str = "1.1"
) -> bytes:
    """Encode a status line and headers, with the empty line that ends them.

    :param headers: whole header lines, ``"Retry-After: 1"``.
    :param status: number and reason.
    :param content_type: the media type; ``None`` sends none.
    :param version: of HTTP.
    :return: the bytes.
    """
    lines = [f"HTTP/{version} {status}", *([f"Content-Type: {content_type}"] if content_type else []), *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Encode one chunk of a chunked body (RFC 9112, section 7.1).

    :param data: the chunk's data.
    :return: the bytes.
    """
    return to_chunk(data)


def chunked(*pieces: bytes) -> bytes:
    """Encode a whole chunked body.

    :param pieces: the data of each chunk.
    :return: the bytes, with the last chunk.
    """
    return b"".join(map(chunk, pieces)) + LAST_CHUNK


class _Unframed(bytes):
    """Bytes that do not count as part of the body."""


class Answer:
    """One answer. Every method but :meth:`steps` adds to it and returns it, so that they can be chained::

        Answer().event("one", id=1).event("two", id=2).cut(at=30, rst=True)
        Answer(503, retry_after=1)
        Answer(307, location="/elsewhere")

    An answer that is not ended by one of :meth:`drop`, :meth:`stall` and :meth:`cut` ends as its framing does, and
    the connection may be used again. Any number of requests may get it. Only one thread at a time may add to it, and
    not while it is sent.

    :param status: the number, or number and reason (``"503 Busy"``).
    :param headers: more headers.
    :param content_type: the media type. By default that of event streams for 200, plain text for other statuses with
        a body; ``""`` sends none.
    :param body: a whole body in one piece: text is UTF-8. The same as a first call of :meth:`raw`.
    :param retry_after: the ``Retry-After`` header: seconds, or a date as HTTP writes it.
    :param location: the ``Location`` header.
    :param framing: how the body is framed: ``"chunked"``, one chunk for each piece; ``"length"``, with its
        ``Content-Length``; ``"close"``, to the end of the connection; ``"http/1.0"``, the same in an answer of that
        version. By default chunked for 200, else by length. 204 and 304 have no body.
    """

    def __init__(
        self,
        status: int | str = 200,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
        body: str | bytes = b"",
        retry_after: float | str | None = None,
        location: str | None = None,
        framing: Literal["chunked", "length", "close", "http/1.0"] | None = None,
    ) -> None:
        self._status = _with_reason(status)
        number = int(self._status[:3])
        self._bodyless = number in (204, 304) or number < 200
        self._framing = framing or ("chunked" if number == 200 else "length")
        pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
        self._headers: list[tuple[str, str]] = list(pairs)
        if retry_after is not None:
            self._headers.append(("Retry-After", str(retry_after)))
        if location is not None:
            self._headers.append(("Location", location))
        self._content_type = content_type
        self._items: list[bytes | _Signal | Pause | Step] = []
        self._splits: set[int] = set()
        self._every = 0
        self._pause = 0.0
        self._cut: tuple[int, Step] | None = None
        self.raw(body)

    def event(
        self,
        data: Event | str | bytes | None = None,
        *,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> Answer:
        """Send an event.

        :param data: an :class:`ssesync.Event`, which has all fields, or the data of one.
        :param type: the type.
        :param id: the ID.
        :param retry: the reconnection time in milliseconds.
        :param comment: a comment before the event.
        :return: the answer.
        :raises EventError: a field that no event stream can carry.
        """
        if not isinstance(data, Event):
            data = Event(data, type=type, id=id, retry=retry, comment=comment)
        return self.raw(encode(data))

    def events(self, *events: Event | str) -> Answer:
        """Send several events.

        :param events: the events; text is an event's data.
        :return: the answer.
        """
        for event in events:
            self.event(event)
        return self

    def json(self, obj: Any, *, type: str | None = None, id: str | int | None = None) -> Answer:
        """Send an event with JSON for data.

        :param obj: the object to encode.
        :param type: the event's type.
        :param id: the event's ID.
        :return: the answer.
        """
        return self.event(Event.from_json(obj, type=type, id=id))

    def comment(self, text: str) -> Answer:
        """Send a comment.

        :param text: the text, of any number of lines.
        :return: the answer.
        """
        return self.raw(encode_comment(text))

    def keep_alive(self) -> Answer:
        """Send the comment with which servers keep a silent connection alive.

        :return: the answer.
        """
        return self.raw(KEEP_ALIVE)

    def retry(self, milliseconds: int | str) -> Answer:
        """Send a reconnection time.

        :param milliseconds: the time; text is sent as it is, valid or not.
        :return: the answer.
        """
        return self.raw(f"retry: {milliseconds}\n")

    def raw(self, data: bytes | str) -> Answer:
        """Send bytes of the body as they are, even invalid ones; if the body is chunked, as a chunk of their own.

        :param data: the bytes; text is UTF-8.
        :return: the answer.
        """
        data = data.encode() if isinstance(data, str) else bytes(data)
        return self._add(data) if data else self

    def unframed(self, data: bytes) -> Answer:
        """Send bytes outside the body's framing, such as a broken chunk size.

        :param data: the bytes.
        :return: the answer.
        """
        return self._add(_Unframed(data))

    def wait_for(self, signal: _Signal) -> Answer:
        """Wait for a signal of the test, which must be set within the server's ``patience`` seconds.

        :param signal: a ``threading.Event``, or a ``threading.Semaphore``, of which one is acquired.
        :return: the answer.
        """
        return self._add(signal)

    def pause(self, seconds: float) -> Answer:
        """Wait, in real time.

        :param seconds: how long.
        :return: the answer.
        """
        return self._add(Pause(seconds))

    def stall(self) -> Answer:
        """Send no more bytes, and keep the connection open until the client leaves or the server is closed.

        :return: the answer.
        """
        return self._add(HOLD)

    def drop(self, *, rst: bool = False) -> Answer:
        """End the connection here, in the middle of the body.

        :param rst: cut it, as if the server had crashed (RST), instead of ending it in order (FIN). Bytes that the
            client has not received by then may be lost; over the loopback interface none are in practice.
        :return: the answer.
        """
        return self._add(RST if rst else FIN)

    def cut(self, at: int, *, rst: bool = False) -> Answer:
        """End the connection when exactly ``at`` bytes of the body were sent.

        :param at: the number of bytes.
        :param rst: as for :meth:`drop`.
        :return: the answer.
        """
        self._cut = at, RST if rst else FIN
        return self

    def split(self, *offsets: int, every: int = 0, pause: float = 0.01) -> Answer:
        """Send the body in pieces.

        :param offsets: cut it at these offsets.
        :param every: cut it every so many bytes too.
        :param pause: seconds between two pieces. Without a pause several may reach the client in one piece.
        :return: the answer.
        """
        self._splits |= set(offsets)
        self._every = every
        self._pause = pause
        return self

    def __iter__(self) -> Iterator[Any]:
        return self.steps()

    def steps(self, *, head_only: bool = False) -> Iterator[Any]:
        """Make the single steps (see ``Steps``).

        :param head_only: without the body, as HEAD is answered.
        :return: an iterator over the steps.
        :raises ScriptError: the body ends before the offset of the cut.
        """
        yield self._head()
        if head_only or self._bodyless:
            return
        at = 0
        end, last = self._cut or (None, FIN)
        for item in self._items:
            if at == end:
                break
            if type(item) is bytes:
                data = item if end is None else item[: end - at]
                yield from self._pieces(data, at)
                at += len(data)
            else:
                yield item
                if isinstance(item, Step):
                    return
        if end is not None and at < end:
            raise ScriptError(f"the body was to be cut at byte {end:,}, but has {at:,}")
        if end is not None or self._framing in ("close", "http/1.0"):
            yield last
        elif self._framing == "chunked":
            yield LAST_CHUNK

    def _add(self, *items: bytes | _Signal | Pause | Step) -> Answer:
        self._items += items
        return self

    def _pieces(self, data: bytes, offset: int) -> Iterator[bytes | Pause]:
        cuts = {cut - offset for cut in self._splits}
        if self._every:
            cuts |= set(range(-(offset % self._every), len(data), self._every))
        offsets = sorted({0, *(cut for cut in cuts if 0 < cut < len(data)), len(data)})
        for start, end in pairwise(offsets):
            if self._pause and start in cuts and start + offset:
                yield Pause(self._pause)
            yield chunk(data[start:end]) if self._framing == "chunked" else data[start:end]

    def _head(self) -> bytes:
        headers = [f"{name}: {value}" for name, value in self._headers]
        content_type = self._content_type
        if not self._bodyless:
            if self._framing == "chunked":
                headers.append(CHUNKED)
            elif self._framing == "length":
                size = sum(len(item) for item in self._items if type(item) is bytes)
                headers.append(f"Content-Length: {size}")
            else:
                headers.append("Connection: close")
            if content_type is None and not any(name.lower() == "content-type" for name, _ in self._headers):
                content_type = "text/event-stream" if self._status.startswith("200") else "text/plain; charset=utf-8"
        version = "1.0" if self._framing == "http/1.0" else "1.1"
        return head(*headers, status=self._status, content_type=content_type, version=version)


def _with_reason(status: int | str) -> str:
    if isinstance(status, str) and status[:3].isdecimal():
        return status
    try:
        return f"{int(status)} {http.HTTPStatus(int(status)).phrase}"
    except ValueError:
        return f"{int(status)} Unknown"
