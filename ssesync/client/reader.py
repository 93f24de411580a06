"""Reader: one response, read as events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from ..errors import ContentTypeError, EventTooLarge, IncompleteStream, ReadError, StatusError, excerpt
from ..event import Event
from ..wire.decoder import MAX_EVENT_SIZE, Decoder
from ..wire.http import is_event_stream
from .body import Body
from .coding import refusal
from .link import link, signal_of

__all__ = ["Reader"]

# How much of an answer that is no event stream goes into the error, and how long it may take to arrive.
EXCERPT_SIZE = 65536
_EXCERPT_SECONDS = 5.0
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class Reader:
    """Reads the events of one response; does not reconnect.

    ::

        with requests.get(url, stream=True) as response:
            for event in Reader(response):
                print(event.type, event.data)

    Each event is given as soon as its blank line has arrived, whatever the framing of the body. Leaving the loop,
    by ``break`` or an exception, closes the response. One thread reads; :meth:`cancel` and :meth:`close` may be
    called from any.

    :param source: a ``requests`` response got with ``stream=True``, or any iterable of bytes.
    :param max_event_size: the bytes that one event may hold (16 MiB); see :class:`ssesync.wire.Decoder`.
    :param cancel: something that ends the reading from elsewhere: a :class:`ssesync.CancelToken`, an
        :class:`ssesync.EventStream` (its client's leaving ends this reader too), or a ``threading.Event``,
        which is looked at every 0.1 s.
    :param until: the event that ends a one-shot stream: its data (``"[DONE]"``) or a function of an
        :class:`ssesync.Event`. That event is not given, and the response is closed though the server may hold it.
    :param until_required: raise :class:`IncompleteStream` when the stream ends without that event.
    :param idle_timeout: seconds without a byte, comments included, until :class:`IdleTimeout`. ``None`` leaves
        the read timeout of the request, which ``requests`` has none of unless told.
    :param last_event_id: the ID that events carry until the stream sets one.
    :param on_comment: called with the text of every comment, keep-alives included, on the reading thread.
    :param check: refuse a response that is not an event stream. Status 204, which tells clients not to come back,
        reads as a stream without events.
    :raises StatusError: the status is neither 200 nor 204; the first 64 kB of the body are in the error.
    :raises ContentTypeError: the media type is not ``text/event-stream``.
    :raises ContentEncodingError: the body is encoded in a way that can't be decoded here.
    """

    def __init__(
        self,
        source: Any,
        *,
        max_event_size: int = MAX_EVENT_SIZE,
        cancel: Any = None,
        until: str | Callable[[Event], object] | None = None,
        until_required: bool = False,
        idle_timeout: float | None = None,
        last_event_id: str | None = None,
        on_comment: Callable[[str], object] | None = None,
        check: bool = True,
    ) -> None:
        if cancel is not None:
            signal_of(cancel)  # refused before anything is open
        #: The response, with its status and headers; ``None`` over an iterable of bytes.
        self.response: Any = source if hasattr(source, "headers") else None
        self._body = Body(source, idle_timeout=idle_timeout)
        self._decoder = Decoder(last_event_id, max_event_size=max_event_size, comments=on_comment is not None)
        self._last_event_id = self._decoder.last_event_id
        self._until = until
        self._until_required = until_required
        self._on_comment = on_comment
        self._unlink: Callable[[], None] | None = None if cancel is None else link(cancel, self.cancel)
        if check and self.response is not None:
            try:
                self._check()
            except BaseException:
                self.close()
                raise
        self._with_comments = False
        self._events = self._read_events()

    @property
    def last_event_id(self) -> str:
        """The ID of the last event that was handed out (not of one that is only buffered), ``""`` if none."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds that the stream asked for last, ``None`` if it never did."""
        return self._decoder.retry

    @property
    def max_event_size(self) -> int:
        """The bytes that one event may hold; may be changed at any time, for what is read from then on."""
        return self._decoder.max_event_size

    @max_event_size.setter
    def max_event_size(self, size: int) -> None:
        self._decoder.max_event_size = size

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` or :meth:`close` ended the stream before its own end."""
        return self._body.cancelled

    def read(self) -> Event | None:
        """Wait for the next event; ``None`` at the end of the stream and after a cancel.

        :raises IdleTimeout: no byte came within the idle timeout.
        :raises ConnectionLost: the connection broke, or ended before the framing says so.
        :raises EventTooLarge: an event passes ``max_event_size``.
        :raises IncompleteStream: see ``until_required``.
        """
        return next(self._events, None)

    def __iter__(self) -> Iterator[Event]:
        try:
            yield from self._events
        finally:
            self.close()

    def events_and_comments(self) -> Iterator[Event]:
        """Like iterating, with the comments in their places: events that have ``data`` ``None`` and a ``comment``.

        Comments of bytes that have been read already are not among them. Leaving the loop closes the response.
        """
        self._with_comments = self._decoder.comments = True
        return iter(self)

    def for_each(self, fn: Callable[[Event], object], *, cancel: Any = None) -> None:
        """Call ``fn`` with every event until the end, or until ``cancel`` (as in the constructor) says stop.

        What ``fn`` raises closes the response and goes on to the caller.
        """
        unlink = None if cancel is None else link(cancel, self.cancel)
        try:
            for event in self:
                fn(event)
        finally:
            if unlink is not None:
                unlink()

    def probe(self) -> None:
        """Have the kernel find out whether a silent peer is still there (``SO_KEEPALIVE``), where it can."""
        self._body.probe()

    def cancel(self) -> None:
        """End the reading at once, from any thread, without waiting: the iteration stops quietly."""
        self._body.cancel()

    def close(self) -> None:
        """Cancel, and close the response. Safe from any thread; does nothing the second time."""
        self._body.close()
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read_events(self) -> Iterator[Event]:
        body, decoder = self._body, self._decoder
        too_large: EventTooLarge | None = None
        try:
            while too_large is None and (chunk := body.read()):
                try:
                    events = decoder.feed(chunk)
                except EventTooLarge as error:
                    too_large = error
                    events = error.events
                for event in events:
                    if body.cancelled:
                        return
                    if event.data is None:
                        self._comment(event)
                        if self._with_comments:
                            yield event
                        continue
                    if self._until is not None and self._is_last(event):
                        return
                    self._last_event_id = event.id or ""
                    yield event
                # A block that only sets the ID dispatches nothing; all before it has been handed out by now.
                self._last_event_id = decoder.last_event_id
            if too_large is not None:
                raise too_large
            if self._until_required and not body.cancelled:
                raise IncompleteStream(f"the stream ended before the event that until={self._until!r} waits for")
        finally:
            self.close()

    def _comment(self, event: Event) -> None:
        if self._on_comment is not None:
            self._on_comment(event.comment or "")

    def _is_last(self, event: Event) -> bool:
        return bool(self._until(event)) if callable(self._until) else event.data == self._until

    def _check(self) -> None:
        response = self.response
        status = getattr(response, "status_code", None) or getattr(response, "status", None)
        content_type = response.headers.get("Content-Type")
        if status == 204:
            return
        if status == 200 and is_event_stream(content_type):
            if (refused := refusal(response)) is not None:
                raise refused
            return
        body = excerpt_of(self._body)
        if status != 200:
            hint = ""
            if status in _REDIRECTS:
                location = response.headers.get("Location")
                hint = f" with Location {location!r}, which was not followed" if location else " without a Location"
            raise StatusError(f"status {status}{hint} instead of 200: {excerpt(body, 200)}", response, body)
        raise ContentTypeError(
            f"media type {content_type!r} instead of text/event-stream: {excerpt(body, 200)}", response, body
        )


def excerpt_of(body: Body) -> bytes:
    """The beginning of an answer that is no event stream; it is closed. It may never end, so a timer ends the wait."""
    pieces: list[bytes] = []
    size = 0
    timer = threading.Timer(_EXCERPT_SECONDS, body.cancel)
    timer.daemon = True
    timer.start()
    try:
        while size <= EXCERPT_SIZE and (piece := body.read()):
            pieces.append(piece)
            size += len(piece)
    except ReadError:
        pass  # what came is told; the status is the error
    finally:
        timer.cancel()
        body.close()
    return b"".join(pieces)[:EXCERPT_SIZE]
