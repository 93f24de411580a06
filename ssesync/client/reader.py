"""Reader: one response, read as events."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from ..errors import (
    ContentTypeError,
    EventTooLarge,
    IdleTimeout,
    IncompleteStream,
    ReadError,
    SettingsError,
    StatusError,
    excerpt,
)
from ..event import Event, ReceivedEvent
from ..text import shown
from ..validation import check_number, refuse_unknown
from ..wire.decoder import MAX_EVENT_SIZE, Decoder
from ..wire.http import is_event_stream
from .body import Body, BodyState
from .cancel_adapter import link, signal_of
from .coding import unsupported_coding
from .interim import status_of
from .watchdog import Watchdog

__all__ = ["Reader"]

# Of a response that is no event stream: the bytes that the error has, the seconds to wait for them, and the seconds of
# silence after which the wait ends. The body of an error arrives with its head, or right after it.
EXCERPT_SIZE = 65536
_EXCERPT_SECONDS = 5.0
_EXCERPT_SILENCE = 0.3
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class Reader:
    """Reads the events of one response; does not reconnect.

    ::

        with requests.get(url, stream=True) as response:
            for event in Reader(response):
                print(event.type, event.data)

    Each event is returned as soon as its blank line has arrived, whatever the framing of the body, as a
    :class:`ReceivedEvent`. Leaving the loop, by ``break`` or an exception, closes the response. One thread reads; any
    thread may call :meth:`cancel` and :meth:`close`.

    :param source: a ``requests`` response got with ``stream=True``, or any iterable of bytes. Each response is read by
        one reader only. Interim responses (status 1xx) are skipped; a response that begins with one takes on the
        status and headers of the final one.
    :param max_event_size: the bytes that one event may hold (16 MiB); see :class:`ssesync.wire.Decoder`.
    :param cancel: a signal that ends the reading: a :class:`ssesync.CancelToken`, an :class:`ssesync.EventStream` (this
        reader ends too when its client leaves), or a ``threading.Event``, which is checked every 0.1 s.
    :param until: the event that ends a one-shot stream: its data (``"[DONE]"``) or a function of a
        :class:`ReceivedEvent`. That event is not returned, and the response is closed even if the server keeps it open.
    :param until_inclusive: return that event too, as the last one; its ID becomes the last event ID.
    :param until_required: raise :class:`IncompleteStream` when the stream ends without that event.
    :param idle_timeout: seconds without a byte, comments included, until :class:`IdleTimeout`. ``None``: the read
        timeout of the request; ``requests`` has none by default.
    :param event_timeout: seconds without an event, even if comments arrive meanwhile, until :class:`IdleTimeout`;
        ``None``: no limit. The time that the consumer needs between two events does not count.
    :param last_event_id: the ID that events carry until the stream sets one; ``None`` and ``""``: none.
    :param on_comment: called with the text of every comment, keep-alives included, on the reading thread.
    :param check: refuse a response that is not an event stream. Status 204, after which clients must not reconnect, is
        read as a stream without events.
    :raises StatusError: the status is neither 200 nor 204; the first 64 kB of the body are in the error.
    :raises ContentTypeError: the media type is not ``text/event-stream``.
    :raises ContentEncodingError: the body is encoded in a way that can't be decoded here.
    :raises TypeError: the source can't be read; the message names the remedy.
    :raises RuntimeError: the response has a reader already.
    :raises SettingsError: the value of an option can't work.
    """

    def __init__(
        self,
        source: Any,
        *,
        max_event_size: int = MAX_EVENT_SIZE,
        cancel: Any = None,
        until: str | Callable[[ReceivedEvent], object] | None = None,
        until_inclusive: bool = False,
        until_required: bool = False,
        idle_timeout: float | None = None,
        event_timeout: float | None = None,
        last_event_id: str | None = None,
        on_comment: Callable[[str], object] | None = None,
        check: bool = True,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown(Reader, unknown)
        _check_source(source)
        check_options(until, until_inclusive or until_required, event_timeout)
        if cancel is not None:
            signal_of(cancel)  # refused before anything is open
        #: The response, with its status and headers; ``None`` over an iterable of bytes.
        self.response: Any = source if hasattr(source, "headers") else None
        self._body = Body(source, idle_timeout=idle_timeout)
        self._decoder = Decoder(
            last_event_id, max_event_size=max_event_size, comments=on_comment is not None, retry_on_events=True
        )
        self._last_event_id = self._decoder.last_event_id
        self._until = until
        self._until_inclusive = until_inclusive
        self._until_required = until_required
        self._event_timeout = event_timeout
        self._retry: int | None = None
        self._on_comment = on_comment
        self._unlink: Callable[[], None] | None = None if cancel is None else link(cancel, self.cancel)
        if self.response is not None:
            try:
                self.response = self._body.final()
                if check and not self._body.cancelled:
                    self._check()
            except BaseException:
                self.close()
                raise
        self._with_comments = False
        self._events = self._read_events()

    @property
    def last_event_id(self) -> str:
        """The ID of the last event that was returned (not of one that is only buffered), ``""`` if none."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds that was in force with the last event that was returned.

        ``None`` if the stream had set none by then. An event whose own block sets it has it as its ``retry``.
        """
        return self._retry

    @property
    def max_event_size(self) -> int:
        """The bytes that one event may hold; may be changed at any time, for later events."""
        return self._decoder.max_event_size

    @max_event_size.setter
    def max_event_size(self, size: int) -> None:
        self._decoder.max_event_size = size

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` or :meth:`close` ended the stream before its own end."""
        return self._body.cancelled

    def read(self) -> ReceivedEvent | None:
        """Wait for the next event.

        :return: the event; ``None`` at the end of the stream and after a cancel.
        :raises IdleTimeout: no byte arrived within the idle timeout, or no event within ``event_timeout``.
        :raises ConnectionLost: the connection broke, or ended before the body's end.
        :raises EventTooLarge: an event passes ``max_event_size``.
        :raises IncompleteStream: see ``until_required``.
        """
        return next(self._events, None)

    def __iter__(self) -> Iterator[ReceivedEvent]:
        try:
            yield from self._events
        finally:
            self.close()

    def events_and_comments(self) -> Iterator[Event]:
        """Iterate over events and comments. Leaving the loop closes the response.

        :return: an iterator over events. A comment is an event with ``data`` ``None`` and a ``comment``. Comments in
            bytes that were read before this call are not among them.
        """
        self._with_comments = self._decoder.comments = True
        return iter(self)

    def for_each(self, fn: Callable[[ReceivedEvent], object], *, cancel: Any = None) -> None:
        """Call ``fn`` with every event until the end of the stream.

        :param fn: the function. An exception of it closes the response, and is raised to the caller.
        :param cancel: a signal that ends the reading, see the constructor.
        """
        unlink = None if cancel is None else link(cancel, self.cancel)
        try:
            for event in self:
                fn(event)
        finally:
            if unlink is not None:
                unlink()

    def probe(self) -> None:
        """Enable the kernel's probes of a silent peer (``SO_KEEPALIVE``), if possible."""
        self._body.probe()

    def cancel(self) -> None:
        """End the reading at once, from any thread, without waiting: the iteration ends without an error."""
        self._body.cancel()

    def close(self) -> None:
        """Cancel, and close the response. Safe from any thread; does nothing the second time."""
        self._body.close()
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()

    def __repr__(self) -> str:
        url = getattr(self.response, "url", None)
        return shown(self, *([str(url)] if url else []), state=self._body.state.name.lower())

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read_events(self) -> Iterator[ReceivedEvent]:
        body, open_state = self._body, BodyState.OPEN
        # Comments, which have no data, are yielded to events_and_comments() only.
        decoder: Decoder[ReceivedEvent] = self._decoder  # type: ignore[assignment]
        too_large: EventTooLarge | None = None
        watchdog = None if self._event_timeout is None else Watchdog(self._event_timeout, body.cancel)
        try:
            while too_large is None and (chunk := body.read()):
                try:
                    events = decoder.feed(chunk)
                except EventTooLarge as error:
                    too_large = error
                    events = error.events
                due: list[tuple[ReceivedEvent, int]] = []
                if decoder.retries:
                    due = [(events[at], retry) for at, retry in decoder.retries if at < len(events)]
                for event in events:
                    if body.state is not open_state:
                        break
                    if due and event is due[0][0]:
                        self._retry = due.pop(0)[1]
                    left = 0.0 if watchdog is None else watchdog.pause()
                    if event.data is None:
                        self._comment(event)
                        if self._with_comments:
                            yield event
                        if watchdog is not None:
                            watchdog.resume(left)
                        continue
                    if self._until is not None and self._is_last(event):
                        if self._until_inclusive:
                            self._last_event_id = event.id
                            self.close()
                            yield event
                        return
                    self._last_event_id = event.id
                    yield event
                    if watchdog is not None:
                        watchdog.restart()
                else:
                    # A block that sets only the ID or the reconnection time dispatches nothing; every event before it
                    # was returned by now.
                    self._last_event_id = decoder.last_event_id
                    self._retry = decoder.retry
            if watchdog is not None and watchdog.expired:
                raise IdleTimeout(f"no event arrived within event_timeout={self._event_timeout:g} s")
            if too_large is not None and not body.cancelled:
                raise too_large
            if self._until_required and not body.cancelled:
                raise IncompleteStream(f"the stream ended before the event that until={self._until!r} waits for")
        finally:
            if watchdog is not None:
                watchdog.close()
            self.close()

    def _comment(self, event: Event) -> None:
        if self._on_comment is not None:
            self._on_comment(event.comment or "")

    def _is_last(self, event: ReceivedEvent) -> bool:
        return bool(self._until(event)) if callable(self._until) else event.data == self._until

    def _check(self) -> None:
        response = self.response
        status = status_of(response)
        content_type = response.headers.get("Content-Type")
        if status == 204:
            return
        if status == 200 and is_event_stream(content_type):
            if (refused := unsupported_coding(response)) is not None:
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


def check_options(until: object, uses_until: bool, event_timeout: float | None) -> None:
    """Check the options that a :class:`Reader` and an :class:`EventSource` share.

    :param until: the option.
    :param uses_until: whether an option needs it.
    :param event_timeout: the option.
    :raises SettingsError: the value of an option can't work.
    """
    if uses_until and until is None:
        raise SettingsError("until_inclusive= and until_required= need until=, which names the event")
    check_number("event_timeout=", event_timeout, above=0, optional=True)


def _check_source(source: Any) -> None:
    if isinstance(source, str):
        if source.lstrip()[:8].lower().startswith(("http://", "https://")):
            raise TypeError(
                f"Reader reads a response, got the address {excerpt(source)}: Reader(requests.get(url, stream=True)), "
                "or EventSource(url), which makes its own requests"
            )
        raise TypeError(
            f"Reader reads bytes, got text {excerpt(source)}: pass a response of a request with stream=True that is "
            "not read yet, or the bytes in a list, Reader([text.encode()])"
        )
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"Reader reads pieces of bytes, got {type(source).__name__} {excerpt(source)}: pass a response of a "
            "request with stream=True, or the whole body in a list, Reader([body])"
        )
    if inspect.isgenerator(source) and source.gi_code.co_name == "iter_lines":
        raise TypeError(
            "Reader needs the line ends, which iter_lines() removes: pass the response itself, "
            "Reader(requests.get(url, stream=True)), or an iterable of unchanged bytes, such as iter_bytes() of httpx"
        )
    if not isinstance(source, Iterable) and not any(hasattr(source, name) for name in ("raw", "iter_content")):
        raise TypeError(
            f"Reader reads a response of requests or an iterable of bytes, got {type(source).__name__} "
            f"{excerpt(source)}"
        )


def excerpt_of(body: Body, *, patient: bool = False, size: int = EXCERPT_SIZE) -> bytes:
    """Read the beginning of a response that is no event stream, and close the response.

    The body may never end: the wait ends after a short silence, and after some seconds in all.

    :param body: the body.
    :param patient: wait for all those seconds, even without a byte.
    :param size: bytes.
    :return: the first ``size`` bytes at most.
    """
    pieces: list[bytes] = []
    got = 0
    end = time.monotonic() + _EXCERPT_SECONDS
    watchdog = Watchdog(_EXCERPT_SECONDS if patient else min(_EXCERPT_SILENCE, _EXCERPT_SECONDS), body.cancel)
    try:
        while got <= size and (piece := body.read()):
            pieces.append(piece)
            got += len(piece)
            if time.monotonic() >= end:
                break
            watchdog.restart()
    except ReadError:
        pass  # the status is the error to report, with the bytes that arrived
    finally:
        watchdog.close()
        body.close()
    return b"".join(pieces)[:size]
