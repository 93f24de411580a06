"""The work of an :class:`EventSource` on the consumer's thread: connect, read, classify the failure, wait, reconnect.

Data: connection after connection, each an :class:`Attempt` and then a :class:`Reader`.
Control: one :class:`CancelToken` for each connection, which covers the attempt, the reading and the wait after it.
``cancel()`` and ``restart()`` set the token, from any thread, and the step that is in progress ends at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import requests

from ..cancel import CancelToken
from ..errors import EventTooLarge, ReadError, StreamEnded
from ..event import ReceivedEvent
from ..locks import Once
from ..retry import Backoff, BackoffState, Clock
from .connect import Attempt, RequestSpec, is_transient, is_unauthorized, retry_after, translate_error
from .reader import Reader

__all__ = ["Following", "Options", "Resources", "State"]

logger = logging.getLogger("ssesync")

# Attempts of one source whose threads may still run, and seconds between two checks whether one has ended.
_MAX_ATTEMPTS, _ATTEMPT_CHECK_SECONDS = 8, 0.05


class State(Enum):
    """The state of an event source."""

    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


# restart() leads to CONNECTING from everywhere; a connection that fails, or is no event stream, to WAITING.
_TRANSITIONS = {
    State.CONNECTING: {State.CONNECTING, State.OPEN, State.WAITING, State.CLOSED},
    State.OPEN: {State.CONNECTING, State.WAITING, State.CLOSED},
    State.WAITING: {State.CONNECTING, State.CLOSED},
    State.CLOSED: {State.CLOSED},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an :class:`EventSource`, checked."""

    request: RequestSpec
    timeout: tuple[float | None, float | None]
    """Seconds for connecting, and between two reads."""
    reconnect: bool
    manual: bool
    """Whether only ``ack()`` sets the last event ID."""
    until: str | Callable[[ReceivedEvent], object] | None
    reader: dict[str, Any]
    """The other options of each :class:`Reader`."""
    backoff: Backoff
    clock: Clock
    should_retry: Callable[[Exception], bool | None] | None
    on_open: Callable[[requests.Response], object] | None
    on_error: Callable[[Exception], object] | None
    on_retry: Callable[[Exception, float, int], object] | None


class Resources:
    """The resources that an event source releases at its end.

    :param session: the session, if it is the source's own.
    """

    def __init__(self, session: requests.Session | None) -> None:
        #: Ends the registration with ``cancel=``, if there is one.
        self.unlink: Callable[[], object] | None = None
        self._session = session
        self._close_session = Once()

    @property
    def released(self) -> bool:
        """Whether the session was closed."""
        return self._close_session.done

    def release(self) -> None:
        """Release them. Any number of times."""
        unlink, self.unlink = self.unlink, None
        if unlink is not None:
            unlink()
        if self._session is not None and self._close_session():
            self._session.close()


class Following:
    """Follows one stream. :meth:`events` runs on one thread; the other methods and properties are for any.

    :param options: the options.
    :param resources: released at the end.
    :param last_event_id: where to begin.
    """

    def __init__(self, options: Options, resources: Resources, last_event_id: str) -> None:
        self._options = options
        self._resources = resources
        self._backoff = BackoffState(options.backoff, options.clock)
        self._attempts: list[Attempt] = []
        self._token = CancelToken()
        self._state = State.CONNECTING
        self._cancelled = False
        self._reader: Reader | None = None
        self._last_event_id = last_event_id
        self._retry: int | None = None
        self._finished = False  # the stream has ended for good
        self._delivered = False  # this connection has delivered an event
        self._refreshed = False  # the connection before this one was refused with 401
        #: Whether comments are returned.
        self.with_comments = False
        #: The newest response.
        self.response: requests.Response | None = None

    @property
    def state(self) -> State:
        """The state. Once cancelled it is closed, even while the reading thread still runs."""
        return State.CLOSED if self._cancelled else self._state

    @property
    def failures(self) -> int:
        """The number of consecutive failures."""
        return self._backoff.failures

    @property
    def last_event_id(self) -> str:
        """The ID after which the next connection resumes, ``""`` for none."""
        reader = self._reader
        return self._last_event_id if self._options.manual or reader is None else reader.last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in force with the last event that was returned."""
        reader = self._reader
        return self._retry if reader is None or reader.retry is None else reader.retry

    def acknowledge(self, last_event_id: str) -> None:
        """Set the ID after which the next connection resumes.

        :param last_event_id: the ID.
        :raises RuntimeError: the consumer sets the last event ID as it takes events.
        """
        if not self._options.manual:
            raise RuntimeError("ack() is for commit='manual'; without it, taking an event sets the last event ID")
        self._last_event_id = last_event_id

    def restart(self) -> None:
        """Drop the connection, or the wait for the next, and connect at once."""
        self._token.set("restart")

    def cancel(self) -> None:
        """End the iteration. Releases nothing; never blocks."""
        self._cancelled = True
        self._token.set("closed")

    def release(self) -> None:
        """Close the connection and release the resources. Not while :meth:`events` runs."""
        reader = self._reader
        if reader is not None:
            reader.close()  # or the connection would be kept until the next read
        self._resources.release()

    def events(self) -> Iterator[ReceivedEvent]:
        """Read connection after connection.

        :return: the events, to the end of the stream. A final error is raised.
        """
        try:
            while (token := self._new_token()) is not None:
                error = yield from self._connect_and_read(token)
                # If a step fails after the token was set, the token was the cause.
                if self._finished or not (token.is_set() or self._wait_to_retry(token, error)):
                    return
        finally:
            self.cancel()
            self._enter(State.CLOSED)
            self.release()

    def _enter(self, state: State) -> None:
        assert state in _TRANSITIONS[self._state], (self._state, state)
        self._state = state

    def _new_token(self) -> CancelToken | None:
        """Make the token of the next connection; ``None`` after :meth:`cancel`."""
        # cancel() takes these two steps in the other order, so one of the two threads sees the step of the other.
        # Without a lock, as the thread whose signal handler cancels could hold it.
        self._token = CancelToken()
        if self._cancelled:
            return None
        self._enter(State.CONNECTING)
        return self._token

    def _connect_and_read(self, token: CancelToken) -> Generator[ReceivedEvent, None, Exception]:
        """Connect once, and yield the events. Returns the error that has ended the connection."""
        # Abandoned attempts on a caller's session end by their own timeouts, and restarts may be faster.
        while len(running := [attempt for attempt in self._attempts if attempt.running]) >= _MAX_ATTEMPTS:
            if token.wait(_ATTEMPT_CHECK_SECONDS):
                return StreamEnded("the connection was not begun")
        self._delivered = False
        attempt = Attempt(self._prepare)
        self._attempts = [*running, attempt]
        try:
            response = attempt.result(token)
        except Exception as error:
            return translate_error(error)
        try:
            if response is not None:
                self.response = response
                yield from self._read(response, token)
        except (ReadError, EventTooLarge) as error:
            return error
        return StreamEnded("the server ended the stream")

    def _prepare(self) -> Callable[[], requests.Response]:
        return self._options.request.prepare(self.last_event_id, self._options.timeout)

    def _read(self, response: requests.Response, token: CancelToken) -> Iterator[ReceivedEvent]:
        options = self._options
        until = None if options.until is None else self._is_last
        reader = Reader(response, cancel=token, until=until, last_event_id=self.last_event_id or None, **options.reader)
        reader.probe()
        self._reader = reader
        opened = options.clock.monotonic()
        try:
            self._finished = response.status_code == 204
            if not self._finished:
                self._refreshed = False
                self._enter(State.OPEN)
                if options.on_open is not None:
                    options.on_open(response)
            if self.with_comments:
                reader.events_and_comments()
            for event in reader:
                self._delivered = self._delivered or event.data is not None
                yield event
        finally:
            reader.close()
            self._retry = self.retry
            if not options.manual:
                self._last_event_id = reader.last_event_id
            self._reader = None
            if self._delivered:
                self._backoff.record_open(options.clock.monotonic() - opened)

    def _is_last(self, event: ReceivedEvent) -> bool:
        until = self._options.until
        self._finished = bool(until(event)) if callable(until) else event.data == until
        return self._finished

    def _wait_to_retry(self, token: CancelToken, error: Exception) -> bool:
        """Wait until the next connection is due. The result: whether to connect again; a final error is raised."""
        options = self._options
        self._enter(State.WAITING)
        if options.on_error is not None:
            options.on_error(error)
        decision = None if options.should_retry is None else options.should_retry(error)
        unauthorized = is_unauthorized(error)
        refresh = unauthorized and decision is None and options.request.varies and not self._refreshed
        self._refreshed = unauthorized
        if refresh:
            return True
        if not (options.reconnect and is_transient(error) if decision is None else decision):
            if isinstance(error, StreamEnded):
                return False
            raise error
        progressed = self._delivered and isinstance(error, StreamEnded)
        requested = retry_after(error, options.clock.time())
        delay = self._backoff.next_delay(error, self.retry, requested, progressed=progressed)
        # The name alone: a message may hold the query, or a piece of the answer.
        logger.info("connecting again in %.2f s, attempt %d, after %s", delay, self.failures, type(error).__name__)
        if options.on_retry is not None:
            options.on_retry(error, delay, self.failures)
        options.clock.wait(token, delay)
        return True
