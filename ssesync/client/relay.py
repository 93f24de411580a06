"""Relay: an upstream's event stream passed on to one client, at every level of a chain.

The upstream is read in the stream's pump, so the server's thread is never blocked in requests. The client's leaving
shuts the upstream's connection at once; that is its client's leaving for the next level, and so on to the origin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import requests

from ..cancel import CancelToken
from ..errors import EventTooLarge, ReadError
from ..event import Event
from ..wire.decoder import MAX_EVENT_SIZE, Decoder
from ..wire.http import MEDIA_TYPE, get_last_event_id, is_event_stream, set_last_event_id
from .body import Body
from .reader import EXCERPT_SIZE, excerpt_of

__all__ = ["Relay", "relay_request"]

# Between two blocks, where a keep-alive of ours can stand: two line ends of any kind, or a comment behind such.
_BLANK = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}")
_FORWARDED = ("Accept-Language", "Content-Type", "User-Agent")
# Of the answer of an upstream that is no event stream, these say something about its body or what to do next.
_ANSWERED = ("Content-Type", "Retry-After", "WWW-Authenticate")


class Target(Protocol):
    """What a relay needs of a stream's writer."""

    cancelled: CancelToken

    def write(self, item: Any) -> None:
        """Write an event."""

    def write_raw(self, data: bytes, *, events: int) -> None:
        """Write bytes as they are."""


class Relay:
    """The source of a stream that passes an upstream's event stream on.

    ::

        return EventStreamResponse(Relay(requests.post(LLM, json=request.json, stream=True)))

    Bytes go through untouched: ids, comments and reconnection times as they are. Keep-alives of the stream's own are
    put in while the upstream is silent, between events only. An upstream whose status is not 200 or that sends
    another media type is answered as an ordinary response, with its status and the first 64 kB of its body. One that
    breaks off ends the stream with an ``error`` event; the reason is logged.

    :param upstream: a ``requests`` response got with ``stream=True``. It is closed when the stream ends.
    :param transform: called with each event, gives what is sent instead: an event, several (any iterable), or
        ``None`` for none. Events are then decoded and encoded anew, and comments are not passed on.
    :param max_event_size: the bytes that one event may hold (16 MiB).
    """

    def __init__(
        self,
        upstream: Any,
        *,
        transform: Callable[[Event], Event | Iterable[Any] | None] | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
    ) -> None:
        self._upstream = upstream
        self._transform = transform
        self._max_event_size = max_event_size
        self._body = Body(upstream)
        #: How to answer instead of streaming, ``None`` for an event stream: status line, headers, body.
        self.answer: tuple[str, list[tuple[str, str]], bytes] | None = None
        if upstream.status_code != 200 or not is_event_stream(upstream.headers.get("Content-Type")):
            self.answer = self._ordinary_answer()

    def produce(self, writer: Target) -> None:
        """Pass on until the upstream's end or the client's. Run by the stream.

        :raises ReadError: the upstream broke off, or sent an event that is too large.
        """
        writer.cancelled.add_callback(self._body.cancel)
        try:
            if self._transform is None:
                self._pass_bytes(writer)
            else:
                self._pass_events(writer, self._transform)
        except EventTooLarge as error:
            raise ReadError(f"the upstream sent too large an event: {error}") from error
        finally:
            writer.cancelled.remove_callback(self._body.cancel)
            self.close()

    def close(self) -> None:
        """Shut the upstream's connection. From any thread, any number of times."""
        self._body.close()

    def _pass_bytes(self, writer: Target) -> None:
        held = b""
        for chunk in self._body:
            data = held + chunk if held else chunk
            end = _safe_end(data)
            if not end:
                held = data
                if len(held) > self._max_event_size:
                    raise EventTooLarge(len(held), self._max_event_size)
                continue
            held = data[end:]
            writer.write_raw(data[:end], events=data.count(b"\n\n", 0, end) or 1)
        # What is left of a block without its end is no event; nobody would dispatch it.

    def _pass_events(self, writer: Target, transform: Callable[[Event], Any]) -> None:
        decoder = Decoder(max_event_size=self._max_event_size)
        for chunk in self._body:
            for event in decoder.feed(chunk):
                result = transform(event)
                if result is None:
                    continue
                for item in [result] if isinstance(result, (Event, str, bytes, Mapping)) else result:
                    writer.write(item)

    def _ordinary_answer(self) -> tuple[str, list[tuple[str, str]], bytes]:
        upstream = self._upstream
        body = excerpt_of(self._body)
        headers = [(name, upstream.headers[name]) for name in _ANSWERED if name in upstream.headers]
        status = upstream.status_code
        if status == 200 and len(body) >= EXCERPT_SIZE:
            # A piece of an error's body tells enough; a piece of a good answer is a wrong answer.
            text = b"the upstream sent no event stream, and more than can be passed on\n"
            return "502 Bad Gateway", [("Content-Type", "text/plain; charset=utf-8")], text
        return f"{status} {upstream.reason or 'Unknown'}", headers, body


def relay_request(
    request: Any,
    url: str,
    *,
    session: requests.Session | None = None,
    forward: Iterable[str] = _FORWARDED,
    **options: Any,
) -> requests.Response:
    """Ask an upstream what a client asks: the same method, query, body and last event ID, and some of its headers.

    :param request: a WSGI environ, or a Flask or Django request.
    :param url: where the upstream is. It comes from your code; never from the client, who could reach your network.
    :param session: a session to send it with, which is not closed.
    :param forward: the names of the headers that go along; without it, what concerns language and body. Hop-by-hop
        headers and cookies never do. Add ``"Authorization"`` only if the upstream may see it.
    :param options: what ``requests`` takes: ``headers``, ``timeout``, ``auth``, ``json``, ``data``, … They win.
    :return: the response, with ``stream=True``; give it to :class:`Relay`.
    """
    environ = request if isinstance(request, Mapping) else getattr(request, "environ", None) or request.META
    headers = {}
    for name in forward:
        key = name.upper().replace("-", "_")
        value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
        if value and name.lower() not in _NEVER:
            headers[name] = value
    headers["Accept"] = MEDIA_TYPE
    headers["Accept-Encoding"] = "identity"
    headers["Cache-Control"] = "no-cache"
    set_last_event_id(headers, get_last_event_id(environ))
    headers.update(options.pop("headers", None) or {})
    if "data" not in options and "json" not in options:
        options["data"] = _request_body(request, environ) or None
    options.setdefault("params", environ.get("QUERY_STRING") or None)
    options.setdefault("stream", True)
    send = requests.request if session is None else session.request
    return send(options.pop("method", environ["REQUEST_METHOD"]), url, headers=headers, **options)


_NEVER = frozenset(("connection", "cookie", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"))


def _request_body(request: Any, environ: Mapping[str, Any]) -> bytes:
    if hasattr(request, "get_data"):
        body: bytes = request.get_data()
        return body
    if hasattr(request, "body"):
        return bytes(request.body)
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def _safe_end(data: bytes) -> int:
    """Where the last whole block ends, comments behind it included; 0 if none does."""
    end = data.rfind(b"\n\n") + 2 if b"\r" not in data else max((m.end() for m in _BLANK.finditer(data)), default=1)
    end = end if end > 1 else 0
    # Comment lines after a block stand alone, and a keep-alive must not wait for the next event to come.
    while data[end : end + 1] == b":":
        line_end = data.find(b"\n", end) + 1
        if not line_end:
            break
        end = line_end
    return end
