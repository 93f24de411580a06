"""EventSource: follows a stream for days, through every kind of failure. ``following.py`` does the work."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Literal, cast

import requests

from ..errors import excerpt
from ..event import Event, ReceivedEvent
from ..retry import Backoff, Clock, SystemClock
from ..text import shown
from ..wire.decoder import MAX_EVENT_SIZE
from ..wire.http import set_last_event_id
from .cancel_adapter import link, weakly
from .connect import RESERVED, RequestSpec
from .following import Following, Options, Resources
from .options import RequestOptions, check_request_options
from .reader import check_options
from .session import new_session

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EventSource"]

#: RFC 9110, section 9.2.2: the server's state is the same however often they are sent.
_IDEMPOTENT = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))


class EventSource:
    """Follows an event stream; reconnects when the connection breaks, and resumes after the consumer's last event.

    ::

        with EventSource(url) as source:
            for event in source:
                handle(event)

    It connects when the first event is requested. One thread iterates; any thread may call :meth:`close`,
    :meth:`cancel`, :meth:`restart` and :meth:`ack`. Leaving the loop closes the source.

    The iteration ends without an error on status 204, ``until`` and ``close()``, and with ``reconnect`` off at the end
    of the stream. It retries after network errors, the end of the stream, silence for ``idle_timeout``, and status 408,
    425, 429 and 5xx. Every other error is raised. Of a connection that fails, an incomplete event is dropped, and the
    last event ID is that of the last event that the consumer took.

    :param url: the stream's address; or, as ``headers`` and ``params`` too, a function without arguments that returns
        it, called for every connection on a thread of its own. Where there is such a function, a 401 is followed by
        one more attempt with fresh values; the next 401 is final.
    :param method: the request's method.
    :param session: the ``requests.Session`` to use. It stays the caller's: it is neither copied nor closed.
    :param headers: more headers; they replace the defaults of ``Accept``, ``Accept-Encoding`` and ``Cache-Control``.
    :param params: the query, as ``requests`` takes it.
    :param data: the body, as ``requests`` takes it; sent anew with every connection.
    :param json: the body, as an object.
    :param last_event_id: where to begin: the ID of the last event that an earlier process has handled; ``None`` and
        ``""``: where the server begins.
    :param commit: what sets the last event ID: ``"taken"``: the consumer takes the event; ``"manual"``: a call of
        :meth:`ack`. Then events that were not acknowledged arrive again after a reconnection.
    :param reconnect: whether to reconnect; ``None``: if the method is idempotent, so that a POST is never sent twice by
        default.
    :param backoff: the waits between connections.
    :param connect_timeout: seconds for making the connection.
    :param idle_timeout: seconds without a byte, comments included, before or after the headers, until the connection
        counts as dead; ``None``: no limit. 45 is three keep-alives of this library's servers.
    :param max_event_size: bytes; see :class:`ssesync.wire.Decoder`. A larger event is final.
    :param event_timeout: seconds without an event on an open connection, even if comments arrive meanwhile, until it
        counts as dead; ``None``: no limit. For servers that send keep-alives although their upstream has failed.
    :param until: the event that ends the stream for good, as for :class:`Reader`.
    :param until_inclusive: return that event too, as the last one; its ID becomes the last event ID.
    :param cancel: a signal that ends the iteration, as for :class:`Reader`.
    :param should_retry: called with every error; its result takes precedence over the rules above: true retries, false
        raises, ``None`` applies the rules. The end of the stream is a :class:`StreamEnded`.
    :param on_open: called with each response that is an event stream.
    :param on_error: called with every error, whether it is raised or not.
    :param on_retry: called before each wait with the error, the wait in seconds and the number of consecutive
        reconnections.
    :param on_comment: called with the text of every comment, as soon as its line is complete. All four are called on
        the iterating thread; their exceptions are raised to the consumer.
    :param clock: the clock of the waits; for tests.
    :param options: other options of ``requests``, passed on unchanged: ``auth``, ``cert``, ``cookies``, ``proxies``,
        ``verify``, …
    :raises TypeError: an option does not exist, or a body can be read only once and would be needed again.
    :raises ValueError: ``commit`` is neither of the two, or the value of another option can't work
        (:class:`SettingsError`).

    While iterating, in addition to the errors of ``requests`` for a request that can't be made:

    :raises StatusError: the status is final.
    :raises ContentTypeError: the response is not an event stream.
    :raises ContentEncodingError: its body is encoded in a way that can't be decoded here.
    :raises EventTooLarge: an event passes ``max_event_size``.
    :raises RetriesExhausted: the limits of ``backoff`` are reached.
    :raises ReadError: one of the errors that are retried, if ``reconnect`` is off or ``should_retry`` refuses.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        method: str = "GET",
        session: requests.Session | None = None,
        headers: Mapping[str, str | bytes] | Callable[[], Mapping[str, str | bytes]] | None = None,
        params: Any = None,
        data: Any = None,
        json: Any = None,
        last_event_id: str | None = None,
        commit: Literal["taken", "manual"] = "taken",
        reconnect: bool | None = None,
        backoff: Backoff | None = None,
        connect_timeout: float | None = 10.0,
        idle_timeout: float | None = 45.0,
        event_timeout: float | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        until: str | Callable[[ReceivedEvent], object] | None = None,
        until_inclusive: bool = False,
        cancel: Any = None,
        should_retry: Callable[[Exception], bool | None] | None = None,
        on_open: Callable[[requests.Response], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_retry: Callable[[Exception, float, int], object] | None = None,
        on_comment: Callable[[str], object] | None = None,
        clock: Clock | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        check_request_options(EventSource, session, options.keys() - RESERVED.keys(), RequestOptions)
        if commit not in ("taken", "manual"):
            raise ValueError(f"commit= takes 'taken' or 'manual', got {excerpt(commit)}")
        set_last_event_id({}, last_event_id)  # refused now rather than at the first reconnection
        check_options(until, until_inclusive, event_timeout)
        method = method.upper()
        used = new_session() if session is None else session
        varying = {"url": url, "headers": headers, "params": params}
        following = Options(
            request=RequestSpec(used, method, varying, {**options, "data": data, "json": json}),
            timeout=(connect_timeout, idle_timeout),
            reconnect=method in _IDEMPOTENT if reconnect is None else reconnect,
            manual=commit == "manual",
            until=until,
            reader={
                "max_event_size": max_event_size, "until_inclusive": until_inclusive,
                "event_timeout": event_timeout, "on_comment": on_comment,
            },
            backoff=backoff or Backoff(), clock=clock or SystemClock(),
            should_retry=should_retry, on_open=on_open, on_error=on_error, on_retry=on_retry,
        )  # fmt: skip
        if following.reconnect or following.request.varies:
            following.request.check_repeatable()
        resources = Resources(used if session is None else None)
        self._following = Following(following, resources, last_event_id or "")
        self._events = cast("GeneratorType[ReceivedEvent, None, None]", self._following.events())
        self._closed = False
        self._url = url
        if cancel is not None:
            # Weakly: the signal may exist for long, and must not keep a source alive that was dropped.
            resources.unlink = unlink = weakref.finalize(self, link(cancel, weakly(self.cancel)))
            unlink.atexit = False

    @property
    def state(self) -> Literal["connecting", "open", "waiting", "closed"]:
        """``"connecting"``, ``"open"``, ``"waiting"`` for the next connection, or ``"closed"``."""
        return self._following.state.value

    @property
    def last_event_id(self) -> str:
        """The ID after which the next connection resumes, ``""`` if none. Store it to resume in a later process."""
        return self._following.last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds in force with the last event that was returned.

        ``None`` if the stream had set none by then.
        """
        return self._following.retry

    @property
    def attempt(self) -> int:
        """The number of consecutive failures; see ``reset_after`` of :class:`Backoff`.

        1 after a connection that ended in order and had delivered an event.
        """
        return self._following.failures

    @property
    def response(self) -> requests.Response | None:
        """The newest response, with its status and headers; ``None`` before there was one."""
        return self._following.response

    def read(self) -> ReceivedEvent | None:
        """Wait for the next event, however many connections that takes.

        :return: the event; ``None`` at the end of the stream and after :meth:`close`.
        """
        return next(self._events, None)

    def __iter__(self) -> Iterator[ReceivedEvent]:
        """Iterate, once.

        :raises RuntimeError: :meth:`close` was called, by any thread or at the end of an earlier iteration.
        """
        if self._closed:
            raise RuntimeError("this EventSource is closed, and can't be iterated again: make a new one")
        return self._iterate()

    def _iterate(self) -> Iterator[ReceivedEvent]:
        try:
            yield from self._events
        finally:
            self.close()

    def events_and_comments(self) -> Iterator[Event]:
        """Iterate over events and comments.

        :return: an iterator over events. A comment is an event with ``data`` ``None`` and a ``comment``.
        :raises RuntimeError: as for iterating.
        """
        self._following.with_comments = True
        return iter(self)

    def for_each(self, fn: Callable[[ReceivedEvent], object], *, cancel: Any = None) -> None:
        """Call ``fn`` with every event until the end of the stream.

        :param fn: the function. An exception of it closes the source, and is raised to the caller.
        :param cancel: a signal that ends the iteration, see the constructor.
        """
        unlink = None if cancel is None else link(cancel, self.cancel)
        try:
            for event in self:
                fn(event)
        finally:
            if unlink is not None:
                unlink()

    def ack(self, event: Event) -> None:
        """With ``commit="manual"``: record that an event, and all before it, were handled. From any thread.

        :param event: the event.
        :raises RuntimeError: ``commit`` is not ``"manual"``.
        """
        self._following.acknowledge(event.id or "")

    def restart(self) -> None:
        """Drop the connection, or the wait for the next, and connect at once. From any thread; never blocks."""
        self._following.restart()

    def close(self) -> None:
        """End connecting, reading or waiting at once: the iteration ends without an error. From any thread and any
        signal handler, any number of times. Never blocks.

        To begin iterating after it is an error. On another thread, which can't know whether the iteration has begun,
        use :meth:`cancel`.
        """
        self._closed = True
        self.cancel()

    def cancel(self) -> None:
        """As :meth:`close`, and an iteration that begins later ends at once, without an error."""
        self._following.cancel()
        # A running iteration ends now, and releases all resources then. Not here: this may be a signal handler that has
        # interrupted it while it holds the lock of a pool of connections.
        if not self._events.gi_running:
            self._following.release()

    def __repr__(self) -> str:
        # A function that makes the URL is not called here; the newest response has the URL.
        response = self.response
        url = self._url if isinstance(self._url, str) else "" if response is None else response.url
        return shown(self, *([url] if url else []), state=self.state)

    def __enter__(self) -> EventSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
