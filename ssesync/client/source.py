"""EventSource: a stream that is followed for days, through every kind of failure.

Data: connection after connection, each an :class:`Attempt` and then a :class:`Reader`, on the consumer's thread.
Control: one :class:`CancelToken` for each connection, which covers the attempt, the reading and the wait after it.
Whoever closes or restarts sets the token, and whatever is going on ends at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal

import requests
from requests.structures import CaseInsensitiveDict

from ..cancel import CancelToken
from ..errors import EventTooLarge, ReadError, RetriesExhausted, StreamEnded, excerpt
from ..event import Event
from ..wire.decoder import MAX_EVENT_SIZE
from ..wire.http import MEDIA_TYPE, set_last_event_id
from .attempt import Attempt, new_session
from .backoff import Backoff, Clock, SystemClock
from .link import link, signal_of
from .outcome import is_transient, is_unauthorized, retry_after, translated
from .reader import Reader

__all__ = ["EventSource"]

logger = logging.getLogger("ssesync")

#: RFC 9110, section 9.2.2: the server's state is the same however often they are sent.
_IDEMPOTENT = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))
# White space around a header's value is no part of it (RFC 9110, section 5.5), and requests refuses it there.
_AROUND = " \t\v\f\x1c\x1d\x1e\x1f"
_OURS = {"timeout": "connect_timeout and idle_timeout", "stream": "nothing: it is always on"}

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
    :param last_event_id: where to begin: the ID of the last event that was handled in an earlier life.
    :param commit: when the last event ID moves on: ``"taken"``, as the consumer takes the event, or ``"manual"``, by
        :meth:`ack`; then what was not acknowledged comes again after a reconnection.
    :param reconnect: whether to; ``None``: if the method is idempotent, so that a POST is never sent twice unasked.
    :param backoff: the waits between connections.
    :param connect_timeout: seconds for making the connection.
    :param idle_timeout: seconds without a byte, comments included, before or after the headers, until the connection
        counts as dead; ``None``: no limit. 45 is three keep-alives of this library's servers.
    :param max_event_size: bytes; see :class:`ssesync.wire.Decoder`. A larger event is final.
    :param until: the event that ends the stream for good, as for :class:`Reader`.
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
    :raises ValueError: ``commit`` is neither of the two.

    While iterating, besides what ``requests`` raises for a request that can't be made:

    :raises StatusError: the status is final.
    :raises ContentTypeError: the answer is not an event stream.
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
        last_event_id: str = "",
        commit: Literal["taken", "manual"] = "taken",
        reconnect: bool | None = None,
        backoff: Backoff | None = None,
        connect_timeout: float | None = 10.0,
        idle_timeout: float | None = 45.0,
        max_event_size: int = MAX_EVENT_SIZE,
        until: str | Callable[[Event], object] | None = None,
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
        for name in _OURS.keys() & options:
            raise TypeError(f"EventSource takes no {name}=; use {_OURS[name]}")
        set_last_event_id({}, last_event_id)  # refused now rather than at the first reconnection
        self._method = method.upper()
        self._reconnect = self._method in _IDEMPOTENT if reconnect is None else reconnect
        self._request = {"url": url, "headers": headers, "params": params}
        self._options = {**options, "data": data, "json": json}
        self._refreshes = any(map(callable, self._request.values()))
        if self._reconnect or self._refreshes:
            for name in ("data", "files"):
                if _read_once(options.get("files") if name == "files" else data):
                    raise TypeError(f"{name}= can be read only once, a reconnection sends it again: give its bytes")
        self._session, self._owns_session = new_session() if session is None else session, session is None
        self._timeout = (connect_timeout, idle_timeout)
        self._max_event_size = max_event_size
        self._until = until
        self._should_retry = should_retry
        self._on_open, self._on_error, self._on_retry = on_open, on_error, on_retry
        self._on_comment = on_comment
        self._backoff = backoff or Backoff()
        self._clock = clock or SystemClock()
        self._manual = commit == "manual"
        self._lock = threading.Lock()
        self._token = CancelToken()
        self._closed = False
        self._state: State = "connecting"
        self._reader: Reader | None = None
        self._last_event_id = last_event_id
        self._retry: int | None = None
        self._finished = False
        self._with_comments = False
        self._refreshed = False
        self._failures = 0
        self._row_began = 0.0
        self._warned: set[tuple[str, float]] = set()
        self._response: requests.Response | None = None
        self._events = self._follow()
        self._unlink: Callable[[], None] | None = None
        if cancel is not None:
            signal_of(cancel)
            self._unlink = link(cancel, self.close)

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
        """The reconnection time in milliseconds that the stream asked for last, ``None`` if it never did."""
        reader = self._reader
        return self._retry if reader is None or reader.retry is None else reader.retry

    @property
    def attempt(self) -> int:
        """How many connections in a row have failed; see ``reset_after`` of :class:`Backoff`."""
        return self._failures

    @property
    def response(self) -> requests.Response | None:
        """The newest response, with its status and headers; ``None`` before there was one."""
        return self._response

    def read(self) -> Event | None:
        """Wait for the next event, however many connections that takes; ``None`` at the end and after ``close()``."""
        return next(self._events, None)

    def __iter__(self) -> Iterator[Event]:
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
        unlink = None if cancel is None else link(cancel, self.close)
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
        with self._lock:
            token = self._token
        token.set("restart")

    def close(self) -> None:
        """End at once whatever is going on: the iteration stops quietly. From any thread, any number of times."""
        with self._lock:
            self._closed = True
            token = self._token
        token.set("closed")
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()
        if self._owns_session:
            self._session.close()

    cancel = close

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
            self.close()

    def _new_token(self) -> CancelToken | None:
        """The control of the next connection; ``None`` after ``close()``."""
        with self._lock:
            if self._closed:
                return None
            self._token = CancelToken()
            self._state = "connecting"
            return self._token

    def _read_one(self, token: CancelToken) -> Generator[Event, None, Exception]:
        """Connect, and give what comes. Returns what ended it."""
        try:
            if (response := self._connect(token)) is not None:
                yield from self._read(response, token)
        except (ReadError, EventTooLarge) as error:
            return error
        return StreamEnded("the server ended the stream")

    def _connect(self, token: CancelToken) -> requests.Response | None:
        try:
            response = Attempt(self._send).result(token)
        except Exception as error:
            ours = translated(error)
            if ours is error:
                raise
            raise ours from error
        self._response = self._response if response is None else response
        return response

    def _read(self, response: requests.Response, token: CancelToken) -> Iterator[Event]:
        reader = Reader(
            response,
            max_event_size=self._max_event_size,
            cancel=token,
            until=None if self._until is None else self._is_last,
            last_event_id=self.last_event_id or None,
            on_comment=self._on_comment,
        )
        reader.probe()
        self._reader = reader
        opened, delivered = self._clock.monotonic(), False
        try:
            self._finished = response.status_code == 204
            if not self._finished:
                self._refreshed, self._state = False, "open"
                if self._on_open is not None:
                    self._on_open(response)
            for event in reader.events_and_comments() if self._with_comments else reader:
                delivered = True
                yield event
        finally:
            reader.close()
            self._retry = self.retry
            if not self._manual:
                self._last_event_id = reader.last_event_id
            self._reader = None
            if delivered and self._clock.monotonic() - opened >= self._backoff.reset_after:
                self._failures = 0

    def _send(self) -> requests.Response:
        request = {name: value() if callable(value) else value for name, value in self._request.items()}
        headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict()
        headers.update({"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", "Cache-Control": "no-cache"})
        headers.update(request.pop("headers") or {})
        if self.last_event_id:
            set_last_event_id(headers, self.last_event_id.strip(_AROUND))
        return self._session.request(
            self._method, headers=headers, stream=True, timeout=self._timeout, **request, **self._options
        )

    def _is_last(self, event: Event) -> bool:
        self._finished = bool(self._until(event)) if callable(self._until) else event.data == self._until
        return self._finished

    def _goes_on(self, token: CancelToken, error: Exception) -> bool:
        """Wait for the time of the next connection; false if the end is a quiet one. What is final is raised."""
        self._state = "waiting"
        if self._on_error is not None:
            self._on_error(error)
        if self._refreshes and not self._refreshed and is_unauthorized(error):
            self._refreshed = True
            return True
        verdict = None if self._should_retry is None else self._should_retry(error)
        if not (self._reconnect and is_transient(error) if verdict is None else verdict):
            if isinstance(error, StreamEnded):
                return False
            raise error
        delay = self._next_delay(error)
        logger.info("connecting again in %.2f s, attempt %d: %s", delay, self._failures, error)
        if self._on_retry is not None:
            self._on_retry(error, delay, self._failures)
        self._clock.wait(token, delay)
        return True

    def _next_delay(self, error: Exception) -> float:
        now, limits = self._clock.monotonic(), self._backoff
        if not self._failures:
            self._row_began = now
        self._failures += 1
        delay = limits.delay(self._failures, self._floor(error))
        elapsed = now - self._row_began
        if (limits.max_attempts is not None and self._failures > limits.max_attempts) or (
            limits.max_elapsed is not None and elapsed + delay > limits.max_elapsed
        ):
            raise RetriesExhausted(self._failures - 1, elapsed, error) from error
        return delay

    def _floor(self, error: Exception) -> float:
        """Seconds that the server asked to wait for."""
        limits = self._backoff
        asked = [((self.retry or 0) / 1000, limits.max_delay, "retry:")]
        asked.append((retry_after(error, self._clock.time()) or 0.0, limits.max_retry_after, "Retry-After"))
        for seconds, limit, name in asked:
            if seconds > limit and (name, seconds) not in self._warned:
                self._warned.add((name, seconds))
                logger.warning("the server asks with %s to wait for %.1f s; %.1f s it is", name, seconds, limit)
        return max(min(seconds, limit) for seconds, limit, _ in asked)


def _read_once(body: Any) -> bool:
    """Whether a body, or a part of it, is gone once it was sent."""
    if isinstance(body, Mapping):
        body = list(body.values())
    if isinstance(body, (list, tuple)):
        return any(map(_read_once, body))
    return hasattr(body, "read") or isinstance(body, Iterator)
