"""Relay: passes an upstream's event stream on to one client, at every level of a chain.

The upstream is read on the producer's thread, so the server's thread is never blocked in requests. When the client
leaves, the upstream's connection is shut at once: for the next level, too, its client has left, and so on to the
origin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import requests

from ..errors import ContentEncodingError, EventTooLarge, ReadError
from ..event import Event, ReceivedEvent, written_id
from ..producing import Producing, Refusal, Tap, Target
from ..text import escape, shown
from ..validation import refuse_unknown
from ..wire.blocks import Blocks
from ..wire.decoder import MAX_EVENT_SIZE, Decoder
from ..wire.http import is_event_stream
from .body import Body
from .coding import unsupported_coding
from .exchange import Exchange
from .forwarding import FORWARDED, Passing, forwarded, passed_headers, passing_of, relay_request
from .options import RelayOptions, check_request_options
from .reader import EXCERPT_SIZE, excerpt_of
from .tap import can_tap, detect_truncation, has_ended, tap_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Relay", "relay_request"]

logger = logging.getLogger("ssesync")

# The headers of an upstream's other response that are passed on: they describe its body or the client's next step.
_ANSWERED = ("Content-Type", "Retry-After", "WWW-Authenticate")
_TEXT = "text/plain; charset=utf-8"


class Relay(Producing):
    """The source of a stream: passes an upstream's event stream on.

    ::

        return EventStreamResponse(Relay(requests.post(LLM, json=request.json, stream=True)))

    Bytes are passed on unchanged, except for a byte order mark: ids, comments and reconnection times as they are. While
    the upstream is silent the stream's own keep-alives are inserted, between events only. If the upstream's status is
    not 200, or it sends another media type, the client gets an ordinary response with that status and the first
    ``max_body`` bytes of its body; if that would be a part of a successful response, 502. If the upstream's connection
    breaks, the stream ends with an ``error`` event, and the reason is logged.

    :param upstream: a ``requests`` response got with ``stream=True``. It is closed when the stream ends.
    :param transform: called with each event; returns the events to send instead: one, several (any iterable), or
        ``None``. Events are decoded and encoded again then, and comments are not passed on.
    :param max_event_size: the bytes of an unfinished event that are buffered (16 MiB); with more the stream ends as if
        the upstream's connection had broken.
    :param pass_headers: the names of headers of the upstream's response that the client gets too, for example
        ``["Mcp-Session-Id"]``, in any case. Headers that the stream has itself are not replaced. Hop-by-hop headers,
        cookies, and the coding, length and type of the body are never passed on.
    :param max_body: bytes of a response that is no event stream (64 KiB). They are read within five seconds. Like
        ``pass_headers`` it may be given to :func:`relay_request` instead.
    """

    def __init__(
        self,
        upstream: Any,
        *,
        transform: Callable[[ReceivedEvent], Event | Iterable[Any] | None] | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        pass_headers: Iterable[str] = (),
        max_body: int | None = None,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown(Relay, unknown)
        self._configure(transform, max_event_size, pass_headers, max_body)
        #: The answer in place of a stream, ``None`` for an event stream: status line, headers, body.
        self.answer: Refusal | None = None
        self._exchange: Exchange | None = None
        self._end: Callable[[], object] | None = None
        self._use(upstream)

    @classmethod
    def from_request(
        cls,
        request: Any,
        url: str,
        *,
        session: requests.Session | None = None,
        forward: Iterable[str] = FORWARDED,
        transform: Callable[[ReceivedEvent], Event | Iterable[Any] | None] | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        pass_headers: Iterable[str] = (),
        max_body: int | None = None,
        **options: Unpack[RelayOptions],
    ) -> Relay:
        """Make a relay whose request is sent while no thread of the server waits: ``Relay(relay_request(…))``, but it
        returns at once.

        If the client is detached, a helper thread connects and sends the request, and the reactor waits for the head of
        the response. The client gets no byte until that has arrived, and then the status of the upstream. If the
        upstream can't be reached, the client gets 502; if it does not answer within its timeout, 504. Redirects are not
        followed, unless ``allow_redirects=True`` is given. With that option, hooks, a proxy, or adapters of your own
        the helper thread makes the whole request. The server's access log always has 200. If the client is not
        detached, and with ``transform``, the request is made as by :func:`relay_request` when the stream is opened, and
        the view raises its errors. If only the written head shows that the client can't be detached (a middleware
        compresses the body, for example), the request is sent after the head, and a refusal is an error event in an
        incomplete answer. The view's next relay then sends its request when it is opened, and its refusal has its
        status.

        :param request: see :func:`relay_request`, as ``url``, ``session``, ``forward`` and ``options``.
        :param url: the upstream.
        :param session: a session to send the request with.
        :param forward: the names of the headers to forward.
        :param transform: see :class:`Relay`, as the next three.
        :param max_event_size: in bytes.
        :param pass_headers: names of headers.
        :param max_body: in bytes.
        :param options: those of ``requests``.
        :return: the relay.
        """
        check_request_options(cls.from_request, session, options.keys(), RelayOptions)
        relay = cls.__new__(cls)
        relay._configure(transform, max_event_size, pass_headers, max_body)
        relay.answer = None
        relay._end = None
        relay._exchange = Exchange(forwarded(request, url, session=session, forward=forward, **options))
        return relay

    def _configure(
        self,
        transform: Callable[[ReceivedEvent], Event | Iterable[Any] | None] | None,
        max_event_size: int,
        pass_headers: Iterable[str],
        max_body: int | None,
    ) -> None:
        self._transform = transform
        self._max_event_size = max_event_size
        self._passing = Passing.checked(pass_headers, max_body)
        #: See :class:`Producing`.
        self.passed_headers: Sequence[tuple[str, str]] = ()

    def _use(self, upstream: Any) -> None:
        """Set the upstream's response."""
        self._upstream = upstream
        self._body = Body(upstream)
        self._body.final()
        asked = passing_of(upstream)
        self._passing = Passing(self._passing.headers or asked.headers, self._passing.max_body or asked.max_body)
        self.passed_headers = passed_headers(upstream, self._passing.headers)
        refused = unsupported_coding(upstream)
        if upstream.status_code != 200 or not is_event_stream(upstream.headers.get("Content-Type")) or refused:
            self.answer = self._ordinary_answer(refused)
        else:
            detect_truncation(upstream)

    @property
    def exchange(self) -> Exchange | None:
        """See :class:`Producing`."""
        return self._exchange

    def answered(self) -> Refusal | None:
        """See :class:`Producing`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            try:
                self._use(exchange.receive())
            except BaseException:
                exchange.discard()
                self._exchange = exchange
                raise
            if exchange.closed:
                self.close()
        return self.answer

    def produce(self, writer: Target) -> None:
        """Pass on until the upstream's end or the client's. Run by the stream.

        :raises ReadError: the upstream's connection broke, or it sent an event that is too large.
        """
        if self._exchange is not None and (answer := self.answered()) is not None:
            raise ReadError(f"the upstream answered {answer.status}, after the head of the stream was sent")
        writer.cancelled._add(self._body.cancel, own=True)
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

    @property
    def can_tap(self) -> bool:
        """See :class:`Producing`. A subclass may do more than pass bytes on, and so may ``transform``."""
        kind = type(self)
        if kind.produce is not Relay.produce or kind.close is not Relay.close or self._transform is not None:
            return False
        return self._exchange is not None or (
            self.answer is None and not self._body.cancelled and can_tap(self._upstream)
        )

    def has_ended(self, timeout: float) -> bool:
        """See :class:`Producing`."""
        return self._exchange is None and has_ended(self._upstream, timeout)

    def tap(self, duplicate: Callable[[int], int]) -> Tap:
        """See :class:`Producing`."""
        tap = tap_of(self._upstream, duplicate, self._body.release_connection)
        tap.max_event_size = self._max_event_size
        return tap

    def detached(self, end: Callable[[], object]) -> None:
        """See :class:`Producing`."""
        self._end = end

    def __repr__(self) -> str:
        if (exchange := self._exchange) is not None:
            return shown(self, exchange.url, state="closed" if exchange.closed else "not sent")
        url = getattr(self._upstream, "url", None)
        return shown(self, *([str(url)] if url else []), state=self._body.state.name.lower())

    def close(self) -> None:
        """Close the upstream's connection, which ends the stream. From any thread, any number of times."""
        if self._end is not None:
            self._end()
        if (exchange := self._exchange) is not None:
            exchange.close()
        else:
            self._body.close()

    def _pass_bytes(self, writer: Target) -> None:
        blocks = Blocks()
        for chunk in self._body:
            data, events = blocks.feed(chunk)
            if data:
                writer.write_raw(data, events=events)
            if blocks.size > self._max_event_size:
                raise EventTooLarge(blocks.size, self._max_event_size)
        if blocks.size and self._body.complete:
            # Not an event, as it is incomplete: the client decides what to do with it. After a broken connection it
            # would corrupt the error event.
            writer.write_raw(blocks.rest(), events=0)

    def _pass_events(self, writer: Target, transform: Callable[[ReceivedEvent], Any]) -> None:
        decoder = Decoder(max_event_size=self._max_event_size, retry_on_events=True)
        retry: int | None = None
        last_id = ""
        for chunk in self._body:
            too_large = None
            try:
                events = decoder.feed(chunk)
            except EventTooLarge as error:
                too_large, events = error, error.events
            retries = dict(decoder.retries)
            for at, event in enumerate([*events, None]):
                if retries.get(at, retry) != retry:
                    retry = retries[at]
                    writer.write(Event(retry=retry))
                if event is not None:
                    is_reset = not event.id and last_id != ""
                    for item in _items(transform(event), retry, is_reset=is_reset):
                        writer.write(item)
                        last_id = event.id
            if too_large is not None:
                raise too_large

    def _ordinary_answer(self, refused: ContentEncodingError | None) -> Refusal:
        upstream = self._upstream
        status = upstream.status_code
        # A part of a successful response is useless: with a Content-Length the wait for its end is longer.
        max_body = self._passing.max_body
        promised = status < 300 and (max_body is not None or "Content-Length" in upstream.headers)
        body = excerpt_of(self._body, patient=promised, size=max_body or EXCERPT_SIZE)
        headers = [(name, upstream.headers[name]) for name in _ANSWERED if name in upstream.headers]
        answered = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in self.passed_headers if name.lower() not in answered]
        if refused is not None:
            # Encoded bytes without their header are useless, and the client may not know the coding either.
            host = urlsplit(upstream.url).hostname
            logger.error(
                "the relay can't pass on the response of %s, and answers with an error: %s",
                escape(host),
                escape(refused),
            )
            body = b"the upstream's answer is encoded in a way that can't be decoded here\n"
            headers = _as_text(headers)
        elif status < 200:
            # An interim response (101, or one after which the connection can't be read) is not for the client.
            body = b"the upstream sent no answer but an interim one\n"
            headers = _as_text(self.passed_headers)
        elif status < 300 and not self._body.complete:
            # A part of an error's body is of use; a part of a successful response is a wrong response.
            body = b"the upstream sent no event stream, and its answer is too large, or its connection broke\n"
            headers = _as_text(self.passed_headers)
        else:
            return Refusal(f"{status} {upstream.reason or 'Unknown'}", headers, body)
        return Refusal(
            f"{status} {upstream.reason or 'Unknown'}" if status >= 300 else "502 Bad Gateway", headers, body
        )


def _as_text(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("Content-Type", _TEXT), *[pair for pair in headers if pair[0] != "Content-Type"]]


def _items(result: Any, retry: int | None, *, is_reset: bool) -> Iterator[Any]:
    """List the results of a transform.

    :param result: the results.
    :param retry: the reconnection time that was passed on last.
    :param is_reset: whether the upstream has reset the last event ID with this event.
    :return: an iterator over the items to write.
    """
    if result is None:
        return
    for item in [result] if isinstance(result, (Event, str, bytes, bytearray, Mapping)) else result:
        if isinstance(item, Event):
            # The decoder sets the type of events that have none; they are sent as they came.
            item = Event(
                item.data,
                type=None if item.type == "message" else item.type,
                id="" if is_reset and item.id == "" else written_id(item),
                retry=None if item.retry == retry else item.retry,
                comment=item.comment,
            )
        yield item
