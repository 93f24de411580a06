"""EventSource: a stream that is followed for days, through every kind of failure.

Data: connection after connection, each an :class:`Attempt` and then a :class:`Reader`, on the consumer's thread.
Control: one :class:`CancelToken` for each connection, which covers the attempt, the reading and the wait after it.
Whoever closes or restarts sets the token, and whatever is going on ends at once.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from types import GeneratorType, TracebackType
from typing import Any, Literal, cast

import requests

from ..cancel import CancelToken
from ..errors import EventTooLarge, ReadError, StreamEnded, excerpt
from ..event import Event
from ..locks import Once
from ..retry import Backoff, BackoffState, Clock, SystemClock
from ..wire.decoder import MAX_EVENT_SIZE
from ..wire.http import set_last_event_id
from .attempt import Attempt, Request, new_session
from .cancel_adapter import link, weakly
from .outcome import is_transient, is_unauthorized, retry_after, translated
from .reader import Reader, check_options

__all__ = ["EventSource"]

logger = logging.getLogger("ssesync")

#: RFC 9110, section 9.2.2: the server's state is the same however often they are sent.
_IDEMPOTENT = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))
# Attempts of one source whose threads may wait at once, and seconds between two looks at whether one has ended.
_ATTEMPTS, _LOOK_AGAIN = 8, 0.05

State = Literal["connecting", "open", "waiting", "closed"]


class EventSource:
    """Follows an event stream; reconnects when it breaks off, and resumes where the consumer was.

    ::

        with EventSource(url) as source:
            for event in source:
                handle(event)

    It connects when the first event is asked for, on the thread that asks; that one thread iterates. :meth:`close`,
    :meth:`cancel`, :meth:`restart` and :meth:`ack` may be called from any. Leaving the loop closes.

    Ends quietly: status 204, ``until``, ``close()``; and with ``reconnect`` off, the end of the stream. Tried again:
    network errors, the end of the stream, silence for ``idle_timeout``, status 408, 425, 429 and 5xx. All else is
    raised. A connection that fails leaves nothing behind: an event that was not complete is dropped, and the last
    event ID is that of the last event that the consumer took.

    :param url: the stream's address; or, as ``headers`` and ``params`` too, a function without arguments that gives
        it, called for every connection on a thread of its own. Where there is such a function a 401 is answered by
        one more attempt with fresh values; the next one is final.
    :param method: the request's method.
    :param session: the ``requests.Session`` to use. It stays the caller's: it is neither copied nor closed.
    :param headers: sent along; they win over ``Accept``, ``Accept-Encoding`` and ``Cache-Control`` as sent by us.
    :param params: the query, as ``requests`` takes it.
    :param data: the body, as ``requests`` takes it; sent anew with every connection.
    :param json: the body, as an object.
    :param last_event_id: where to begin: the ID of the last event that was handled in an earlier life; ``None`` and
        ``""``: as the server begins.
    :param commit: when the last event ID moves on: ``"taken"``, as the consumer takes the event, or ``"manual"``, by
        :meth:`ack`; then what was not acknowledged comes again after a reconnection.
    :param reconnect: whether to; ``None``: if the method is idempotent, so that a POST is never sent twice unasked.
    :param backoff: the waits between connections.
    :param connect_timeout: seconds for making the connection.
    :param idle_timeout: seconds without a byte, comments included, before or after the headers, until the connection
        counts as dead; ``None``: no limit. 45 is three keep-alives of this library's servers.
    :param max_event_size: bytes; see :class:`ssesync.wire.Decoder`. A larger event is final.
    :param event_timeout: seconds that may be waited for an event on an open connection, whatever comments come
        meanwhile, until it counts as dead; ``None``: no limit. For servers whose keep-alives go on though what they
        pass on has died.
    :param until: the event that ends the stream for good, as for :class:`Reader`.
    :param until_inclusive: hand that event out too, as the last one; its ID becomes the last event ID.
    :param cancel: something that closes from elsewhere, as for :class:`Reader`.
    :param should_retry: called with every error, may overrule: true tries again, false raises, ``None`` leaves it to
        the rules above. The end of the stream is a :class:`StreamEnded`.
    :param on_open: called with each response that is an event stream.
    :param on_error: called with every error, whether it is raised or not.
    :param on_retry: called before each wait with the error, the wait in seconds and which reconnection in a row it is.
    :param on_comment: called with the text of every comment, as soon as its line is complete. All four are called on
        the iterating thread; what they raise goes to the consumer.
    :param clock: the time that waits go by; for tests.
    :param options: what else ``requests`` takes, handed on as it is: ``auth``, ``cert``, ``cookies``, ``proxies``,
        ``verify``, …
    :raises TypeError: an option does not exist, or a body can be read only once and would be needed again.
    :raises ValueError: ``commit`` is neither of the two, or another option makes no sense (:class:`SettingsError`).

    While iterating, besides what ``requests`` raises for a request that can't be made:

    :raises StatusError: the status is final.
    :raises ContentTypeError: the answer is not an event stream.
    :raises ContentEncodingError: its body is encoded in a way that can't be decoded here.
    :raises EventTooLarge: an event passes ``max_event_size``.
    :raises RetriesExhausted: the limits of ``backoff`` are reached.
    :raises ReadError: one of the errors above that are tried again, where that is not to be done.
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
        until: str | Callable[[Event], object] | None = None,
        until_inclusive: bool = False,
        cancel: Any = None,
        should_retry: Callable[[Exception], bool | None] | None = None,
        on_open: Callable[[requests.Response], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_retry: Callable[[Exception, float, int], object] | None = None,
        on_comment: Callable[[str], object] | None = None,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        if commit not in ("taken", "manual"):
            raise ValueError(f"commit= takes 'taken' or 'manual', got {excerpt(commit)}")
        set_last_event_id({}, last_event_id)  # refused now rather than at the first reconnection
        check_options(until, until_inclusive, event_timeout)
        method = method.upper()
        self._reconnect = method in _IDEMPOTENT if reconnect is None else reconnect
        self._session, self._owns_session = new_session() if session is None else session, session is None
        varying = {"url": url, "headers": headers, "params": params}
        self._request = Request(self._session, method, varying, {**options, "data": data, "json": json})
        if self._reconnect or self._request.varies:
            self._request.refuse_to_repeat()
        self._timeout = (connect_timeout, idle_timeout)
        self._max_event_size = max_event_size
        self._until, self._until_inclusive, self._event_timeout = until, until_inclusive, event_timeout
        self._should_retry = should_retry
        self._on_open, self._on_error, self._on_retry = on_open, on_error, on_retry
        self._on_comment = on_comment
        self._clock = clock or SystemClock()
        self._backoff = BackoffState(backoff or Backoff(), self._clock)
        self._manual = commit == "manual"
        self._token = CancelToken()
        self._closed = self._released = False
        self._releasing = Once()
        self._state: State = "connecting"
        self._reader: Reader | None = None
        self._last_event_id = last_event_id or ""
        self._retry: int | None = None
        self._finished = self._delivered = False
        self._with_comments = False
        self._refreshed = False
        self._response: requests.Response | None = None
        self._attempts: list[Attempt] = []
        self._events = cast("GeneratorType[Event, None, None]", self._follow())
        self._unlink: Callable[[], object] | None = None
        if cancel is not None:
            # Weakly: what cancels may live on for long, and must not keep a source that was dropped.
            self._unlink = weakref.finalize(self, link(cancel, weakly(self.cancel)))
            self._unlink.atexit = False

    @property
    def state(self) -> State:
        """``"connecting"``, ``"open"``, ``"waiting"`` for the next connection, or ``"closed"``."""
        return "closed" if self._closed else self._state

    @property
    def last_event_id(self) -> str:
        """The ID that the next connection asks to go on behind, ``""`` if none. Store it to resume in a new life."""
        reader = self._reader
        return self._last_event_id if self._manual or reader is None else reader.last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds in force with the last event that was handed out.

        ``None`` if the stream had never asked for any by then.
        """
        reader = self._reader
        return self._retry if reader is None or reader.retry is None else reader.retry

    @property
    def attempt(self) -> int:
        """How many connections in a row have failed; see ``reset_after`` of :class:`Backoff`.

        1 after one that ended in order and had brought an event.
        """
        return self._backoff.failures

    @property
    def response(self) -> requests.Response | None:
        """The newest response, with its status and headers; ``None`` before there was one."""
        return self._response

    def read(self) -> Event | None:
        """Wait for the next event, however many connections that takes; ``None`` at the end and after ``close()``."""
        return next(self._events, None)

    def __iter__(self) -> Iterator[Event]:
        """Iterate, once.

        :raises RuntimeError: :meth:`close` was called, by whoever or at the end of an earlier iteration.
        """
        if self._released:
            raise RuntimeError("this EventSource is closed, and can't be iterated again: make a new one")
        return self._iterate()

    def _iterate(self) -> Iterator[Event]:
        try:
            yield from self._events
        finally:
            self.close()

    def events_and_comments(self) -> Iterator[Event]:
        """Like iterating, with the comments in their places: events that have ``data`` ``None`` and a ``comment``."""
        self._with_comments = True
        return iter(self)

    def for_each(self, fn: Callable[[Event], object], *, cancel: Any = None) -> None:
        """Call ``fn`` with every event until the end, or until ``cancel`` (as in the constructor) says stop.

        What ``fn`` raises closes, and goes on to the caller.
        """
        unlink = None if cancel is None else link(cancel, self.cancel)
        try:
            for event in self:
                fn(event)
        finally:
            if unlink is not None:
                unlink()

    def ack(self, event: Event) -> None:
        """With ``commit="manual"``: the event was handled, and so were all before it. From any thread.

        :raises RuntimeError: without it.
        """
        if not self._manual:
            raise RuntimeError("ack() is for commit='manual'; now the last event ID moves as events are taken")
        self._last_event_id = event.id or ""

    def restart(self) -> None:
        """Drop the connection, or the wait for the next, and connect at once. From any thread; never blocks."""
        self._token.set("restart")

    def close(self) -> None:
        """End at once whatever is going on: the iteration stops quietly. From any thread and any signal handler, any
        number of times. Never blocks.

        To begin iterating after it is an error. From another thread, which can't know whether the iteration has begun,
        :meth:`cancel` is the better one.
        """
        self._released = True
        self.cancel()

    def cancel(self) -> None:
        """As :meth:`close`, and an iteration that begins later just ends."""
        self._closed = True
        self._token.set("closed")
        # What iterates releases all as it ends, which it does now. It may be what this, in a signal handler, has
        # interrupted, in the midst of a pool of connections and its lock.
        if not self._events.gi_running:
            self._release()

    def _release(self) -> None:
        reader = self._reader
        if reader is not None:
            reader.close()  # or the connection would be kept until somebody reads on
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()
        if self._owns_session and self._releasing():
            self._session.close()

    def __enter__(self) -> EventSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> Iterator[Event]:
        try:
            while (token := self._new_token()) is not None:
                error = yield from self._read_one(token)
                # What breaks after the token was set was broken by us.
                if self._finished or not (token.is_set() or self._goes_on(token, error)):
                    return
        finally:
            self._closed = True
            self._token.set("closed")
            self._release()

    def _new_token(self) -> CancelToken | None:
        """The control of the next connection; ``None`` after ``close()``."""
        # In this order, and in close() in the other, one of the two sees what the other did. A lock could be held by
        # the very thread whose signal handler closes.
        self._token = CancelToken()
        self._state = "connecting"
        return None if self._closed else self._token

    def _read_one(self, token: CancelToken) -> Generator[Event, None, Exception]:
        """Connect, and give what comes. Returns what ended it."""
        # Those that were given up on a caller's session end by their own timeouts, and restarts may be faster.
        while len(running := [attempt for attempt in self._attempts if attempt.running]) >= _ATTEMPTS:
            if token.wait(_LOOK_AGAIN):
                return StreamEnded("it was not begun")
        self._delivered = False
        attempt = Attempt(self._prepare)
        self._attempts = [*running, attempt]
        try:
            response = attempt.result(token)
        except Exception as error:
            return translated(error)
        try:
            if response is not None:
                self._response = response
                yield from self._read(response, token)
        except (ReadError, EventTooLarge) as error:
            return error
        return StreamEnded("the server ended the stream")

    def _prepare(self) -> Callable[[], requests.Response]:
        return self._request.prepare(self.last_event_id, self._timeout)

    def _read(self, response: requests.Response, token: CancelToken) -> Iterator[Event]:
        reader = Reader(
            response,
            max_event_size=self._max_event_size,
            cancel=token,
            until=None if self._until is None else self._is_last,
            until_inclusive=self._until_inclusive,
            event_timeout=self._event_timeout,
            last_event_id=self.last_event_id or None,
            on_comment=self._on_comment,
        )
        reader.probe()
        self._reader = reader
        opened = self._clock.monotonic()
        try:
            self._finished = response.status_code == 204
            if not self._finished:
                self._refreshed, self._state = False, "open"
                if self._on_open is not None:
                    self._on_open(response)
            for event in reader.events_and_comments() if self._with_comments else reader:
                self._delivered = self._delivered or event.data is not None
                yield event
        finally:
            reader.close()
            self._retry = self.retry
            if not self._manual:
                self._last_event_id = reader.last_event_id
            self._reader = None
            if self._delivered:
                self._backoff.record_open(self._clock.monotonic() - opened)

    def _is_last(self, event: Event) -> bool:
        self._finished = bool(self._until(event)) if callable(self._until) else event.data == self._until
        return self._finished

    def _goes_on(self, token: CancelToken, error: Exception) -> bool:
        """Wait for the time of the next connection; false if the end is a quiet one. What is final is raised."""
        self._state = "waiting"
        if self._on_error is not None:
            self._on_error(error)
        verdict = None if self._should_retry is None else self._should_retry(error)
        unauthorized = is_unauthorized(error)
        refresh = unauthorized and verdict is None and self._request.varies and not self._refreshed
        self._refreshed = unauthorized
        if refresh:
            return True
        if not (self._reconnect and is_transient(error) if verdict is None else verdict):
            if isinstance(error, StreamEnded):
                return False
            raise error
        progressed = self._delivered and isinstance(error, StreamEnded)
        delay = self._backoff.next_delay(
            error, self.retry, retry_after(error, self._clock.time()), progressed=progressed
        )
        # The name alone: a message may hold what stands in the query, or a piece of the answer.
        logger.info("connecting again in %.2f s, attempt %d, after %s", delay, self.attempt, type(error).__name__)
        if self._on_retry is not None:
            self._on_retry(error, delay, self.attempt)
        self._clock.wait(token, delay)
        return True
