"""Answer: what a :class:`FakeSSEServer` sends to one request, step by step."""

from __future__ import annotations

import http
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

from ..event import Event
from ..wire.encoder import KEEP_ALIVE, encode, encode_comment
from .errors import ScriptError
from .steps import CHUNKED, FIN, HOLD, LAST_CHUNK, RST, Pause, Step, chunk, head

__all__ = ["Answer"]

Framing = Literal["chunked", "length", "close", "http/1.0"]
_Signal = threading.Event | threading.Semaphore


class _Unframed:
    """Bytes that are no part of the body, as far as its framing goes."""

    def __init__(self, data: bytes) -> None:
        self.data = data


_Item = bytes | _Signal | Pause | Step | _Unframed


class Answer:
    """One answer. Every method but :meth:`steps` adds to it and returns it, so that they can be chained::

        Answer().event("one", id=1).event("two", id=2).cut(at=30, rst=True)
        Answer(503, retry_after=1)
        Answer(307, location="/elsewhere")

    An answer that is not ended by one of :meth:`drop`, :meth:`stall` and :meth:`cut` ends as its framing does, and
    the connection may be used again. It can be given to any number of requests. Not to be added to from two
    threads at once, nor while it is being sent.

    :param status: the number, or number and reason (``"503 Busy"``).
    :param headers: more headers.
    :param content_type: the media type. By default that of event streams for 200, plain text for other statuses with
        a body; ``""`` sends none.
    :param body: a whole body in one piece: text is UTF-8. The same as :meth:`raw` first thing.
    :param retry_after: the ``Retry-After`` header: seconds, or a date as HTTP writes it.
    :param location: the ``Location`` header.
    :param framing: how the body travels: ``"chunked"``, one chunk for each piece; ``"length"``, with its
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
        framing: Framing | None = None,
    ) -> None:
        self._status = _with_reason(status)
        number = int(self._status[:3])
        self._bodyless = number in (204, 304) or number < 200
        self._framing = framing or ("chunked" if number == 200 else "length")
        self._headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        if retry_after is not None:
            self._headers.append(("Retry-After", str(retry_after)))
        if location is not None:
            self._headers.append(("Location", location))
        self._content_type = content_type
        self._items: list[_Item] = []
        self._splits: set[int] = set()
        self._every = 0
        self._pause = 0.0
        self._cut: tuple[int, bool] | None = None
        if body:
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
        """Send an event: an :class:`ssesync.Event`, or the fields of one.

        :raises EventError: a field that no event stream can carry.
        """
        if not isinstance(data, Event):
            data = Event(data, type=type, id=id, retry=retry, comment=comment)
        return self.raw(encode(data))

    def events(self, *events: Event | str) -> Answer:
        """Send several events; text is an event's data."""
        for event in events:
            self.event(event)
        return self

    def json(self, obj: Any, *, type: str | None = None, id: str | int | None = None) -> Answer:
        """Send an event with ``obj`` as JSON."""
        return self.event(Event.from_json(obj, type=type, id=id))

    def comment(self, text: str) -> Answer:
        """Send a comment."""
        return self.raw(encode_comment(text))

    def keep_alive(self) -> Answer:
        """Send the comment that servers send so that the connection is not taken for dead."""
        return self.raw(KEEP_ALIVE)

    def retry(self, milliseconds: int | str) -> Answer:
        """Send a reconnection time; text is sent as it is, proper or not."""
        return self.raw(f"retry: {milliseconds}\n")

    def raw(self, data: bytes | str) -> Answer:
        """Send bytes of the body as they are, however wrong; text is UTF-8. A chunk of their own where it has any."""
        data = data.encode() if isinstance(data, str) else data
        if data:
            self._items.append(data)
        return self

    def unframed(self, data: bytes) -> Answer:
        """Send bytes past the body's framing: a broken chunk size, say."""
        self._items.append(_Unframed(data))
        return self

    def wait_for(self, signal: _Signal) -> Answer:
        """Wait for a ``threading.Event``, or take one of a ``threading.Semaphore``, before going on.

        It has to come within the server's ``patience``.
        """
        self._items.append(signal)
        return self

    def pause(self, seconds: float) -> Answer:
        """Wait, in real time."""
        self._items.append(Pause(seconds))
        return self

    def stall(self) -> Answer:
        """Say nothing more, and keep the connection open until the client leaves or the server is closed."""
        self._items.append(HOLD)
        return self

    def drop(self, *, rst: bool = False) -> Answer:
        """End the connection here, in the middle of the body: in order (FIN), or as if the server had died (RST).

        With RST, what the client has not received by then may be lost; over the loopback nothing is in practice.
        """
        self._items.append(RST if rst else FIN)
        return self

    def cut(self, at: int, *, rst: bool = False) -> Answer:
        """End the connection when exactly ``at`` bytes of the body were sent, wherever that is. As :meth:`drop`."""
        self._cut = (at, rst)
        return self

    def split(self, *offsets: int, every: int = 0, pause: float = 0.01) -> Answer:
        """Send the body in pieces, cut at these offsets of it, and every so many bytes.

        :param pause: seconds between two pieces. What is sent without any may reach the client in one piece.
        """
        self._splits |= set(offsets)
        self._every = every
        self._pause = pause
        return self

    def __iter__(self) -> Iterator[Any]:
        return self.steps()

    def steps(self, *, head_only: bool = False) -> Iterator[Any]:
        """The single steps (see ``Steps``).

        :param head_only: without the body, as HEAD is answered.
        :raises ScriptError: the body ends before the place where it was to be cut.
        """
        yield self._head()
        if head_only or self._bodyless:
            return
        at = 0
        end, rst = self._cut or (None, False)
        for item in self._items:
            if at == end:
                break
            if isinstance(item, _Unframed):
                yield item.data
            elif isinstance(item, bytes):
                data = item if end is None else item[: end - at]
                yield from self._pieces(data, at)
                at += len(data)
            else:
                yield item
                if isinstance(item, Step):
                    return
        if end is not None:
            if at < end:
                raise ScriptError(f"the body was to be cut at byte {end:,}, but has {at:,}")
            yield RST if rst else FIN
        elif self._framing == "chunked":
            yield LAST_CHUNK
        elif self._framing != "length":
            yield FIN

    def _pieces(self, data: bytes, offset: int) -> Iterator[bytes | Pause]:
        cuts = {cut - offset for cut in self._splits}
        if self._every:
            cuts |= set(range(-(offset % self._every), len(data), self._every))
        places = sorted({0, *(cut for cut in cuts if 0 < cut < len(data)), len(data)})
        for start, end in pairwise(places):
            if self._pause and start in cuts and start + offset:
                yield Pause(self._pause)
            yield chunk(data[start:end]) if self._framing == "chunked" else data[start:end]

    def _head(self) -> bytes:
        headers = [f"{name}: {value}" for name, value in self._headers]
        given = {name.lower() for name, _ in self._headers}
        body = sum(len(item) for item in self._items if isinstance(item, bytes))
        if not self._bodyless:
            if self._framing == "chunked":
                headers.append(CHUNKED)
            elif self._framing == "length":
                headers.append(f"Content-Length: {body}")
            else:
                headers.append("Connection: close")
        content_type = self._content_type
        if content_type is None and "content-type" not in given and not self._bodyless:
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
