"""OpenStream: the client of an event stream in a test, however the stream is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from wsgiref.headers import Headers

from ..errors import CloseReason, ContentTypeError, StatusError
from ..event import Event, ReceivedEvent
from ..locks import Waiters, make_rlock
from ..server.registry import streams
from ..server.stats import StreamStats
from ..server.stream import EventStream, environ_of, join_producer
from .errors import EndOfStream, WaitTimeout
from .received import Received

__all__ = ["MARK", "OpenStream"]

#: The key in a request's environ for the test's client.
MARK = "ssesync.testing"


class OpenStream:
    """A client in a test, made by :func:`open_stream` and :func:`live_stream`. A context manager: leaving it closes.

    A thread reads, so the view is served while the test does other things; it reads no further than 256 events or
    64 kB ahead of the test. No wait is endless: each takes a ``timeout`` in seconds, by default that of
    :func:`open_stream`, and raises :class:`WaitTimeout`, whose message lists the events that had arrived. Every method
    may be called from any thread; :meth:`disconnect` and :meth:`close` also from a signal handler.

    :param name: method and URL, for messages.
    :param timeout: seconds that each wait may take by default.
    """

    def __init__(self, name: str, timeout: float) -> None:
        #: Method and URL, for messages.
        self.name = name
        #: Seconds that each wait may take by default.
        self.timeout = timeout
        self._taking = make_rlock("testing.stream")  # held while an event is taken
        self._changes = Waiters()
        self._received = Received()
        self._last_event_id = ""
        self._stalled = self._left = self._ended = self._closed = False
        self._error: BaseException | None = None
        self._event_stream: EventStream | None = None

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self._received.status[:3])

    @property
    def headers(self) -> Headers:
        """The headers of the answer. Their names are case-insensitive, and a missing one is ``None``."""
        return self._received.headers

    @property
    def body(self) -> bytes:
        """The bytes of the body, 1 MB at most: for an event stream those that have arrived, else all.

        :raises WaitTimeout: an answer that is no event stream did not end within ``timeout``.
        """
        if not self._received.is_stream:
            self._wait(lambda: self._ended, None, "the end of the answer")
        return bytes(self._received.body)

    @property
    def text(self) -> str:
        """The body as text (UTF-8). As :attr:`body`."""
        return self.body.decode("utf-8", "replace")

    @property
    def comments(self) -> list[str]:
        """All comments that have arrived, keep-alives among them, the last 10,000 at most. A copy."""
        return list(self._received.comments)

    @property
    def last_event_id(self) -> str:
        """The ID of the last event that the test has taken, ``""`` if none. A client would resume with it."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds that the stream has set last, ``None`` if it has set none."""
        return self._received.retry

    @property
    def closed(self) -> bool:
        """Whether the server has called the body's ``close()`` and, if the stream is detached, the stream has ended."""
        return self._closed

    @property
    def event_stream(self) -> EventStream | None:
        """The :class:`ssesync.EventStream` that serves this client, ``None`` if another object does."""
        return self._event_stream

    @property
    def stats(self) -> StreamStats | None:
        """The figures of that stream so far."""
        return None if self._event_stream is None else self._event_stream.stats

    @property
    def reason(self) -> CloseReason | None:
        """Why that stream ended or is ending, ``None`` while it is not."""
        return None if self._event_stream is None else self._event_stream.reason

    def next(self, timeout: float | None = None) -> ReceivedEvent:
        """Wait for the next event.

        :param timeout: seconds to wait at most.
        :return: the event.
        :raises WaitTimeout: none arrived within ``timeout`` seconds.
        :raises EndOfStream: the stream is over.
        :raises StatusError: the answer's status is neither 200 nor 204.
        :raises ContentTypeError: the answer is no event stream.
        :raises Exception: an exception of the application's body, if it is not this library's.
        """
        event = self._take(timeout, "an event")
        if event is None:
            raise EndOfStream(f"the stream is over: {self}")
        return event

    def take(self, count: int, timeout: float | None = None) -> list[ReceivedEvent]:
        """Wait for the next events. Raises the same errors as :meth:`next`.

        :param count: how many.
        :param timeout: seconds to wait at most, for all of them together.
        :return: the events.
        """
        until = _Deadline(self.timeout if timeout is None else timeout)
        return [self.next(until.left()) for _ in range(count)]

    def rest(self, timeout: float | None = None) -> list[ReceivedEvent]:
        """Wait for the end of the stream. Raises the same errors as :meth:`next`, except ``EndOfStream``.

        :param timeout: seconds to wait at most.
        :return: the events until then.
        """
        until = _Deadline(self.timeout if timeout is None else timeout)
        events = []
        while (event := self._take(until.left(), "the end of the stream")) is not None:
            events.append(event)
        return events

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return self

    def __next__(self) -> ReceivedEvent:
        event = self._take(None, "an event")
        if event is None:
            raise StopIteration
        return event

    def wait_for_comments(self, count: int = 1, timeout: float | None = None) -> list[str]:
        """Wait until so many comments in all have arrived, keep-alives among them.

        :param count: how many.
        :param timeout: seconds to wait at most.
        :return: all comments that have arrived.
        :raises WaitTimeout: fewer have arrived.
        :raises EndOfStream: the stream is over, and fewer have arrived.
        """
        self._wait(lambda: len(self._received.comments) >= count or self._ended, timeout, f"{count} comments")
        if len(self._received.comments) < count:
            raise EndOfStream(f"the stream is over: {self}")
        return list(self._received.comments)

    def stall(self) -> None:
        """Stop reading, as a client with a broken network does, until :meth:`resume`: the producer has to wait."""
        self._stalled = True

    def resume(self) -> None:
        """Continue to read after :meth:`stall`."""
        self._stalled = False
        self._changes.wake()

    def disconnect(self, timeout: float | None = None) -> None:
        """Leave, as a browser does when its tab is closed, and wait until the server has closed the body.

        Events that had arrived can still be taken.

        :param timeout: seconds to wait at most.
        :raises WaitTimeout: the body was not closed within ``timeout`` seconds: it is in a wait that the client's
            leaving does not end.
        """
        self._leave()
        self.wait_closed(timeout)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the server has closed the answer's body: ``on_close`` was called.

        :param timeout: seconds to wait at most.
        :raises WaitTimeout: it has not.
        """
        self._wait(lambda: self._closed, timeout, "the body's end")

    def wait_finished(self, timeout: float | None = None) -> None:
        """Wait until the producer's thread has run to its end too, ``finally`` blocks included.

        :param timeout: seconds to wait at most.
        :raises WaitTimeout: it has not.
        """
        until = _Deadline(self.timeout if timeout is None else timeout)
        self.wait_closed(until.left())
        if self._event_stream is not None and not join_producer(self._event_stream, until.left()):
            raise WaitTimeout(f"waited {until.seconds:.3g} s for the producer's end. {self}")

    def close(self) -> None:
        """Leave if the client is still there, and wait two seconds at most for the server to notice. Never raises."""
        self._leave()
        self._changes.wait(lambda: self._closed, min(2.0, self.timeout))

    def __enter__(self) -> OpenStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        """The events that have arrived, in one line."""
        if not self._answered:
            return f"{self.name}: no answer yet"
        parts = [f"{self.name}: {self._received}"]
        if self._error is not None:
            parts.append(f"it failed: {self._error!r}")
        elif self._left:
            parts.append("the client has left")
        elif self._stalled:
            parts.append("the client is stalled")
        elif self._received.is_full:
            parts.append("the client reads no further until the test takes events")
        parts.append("the body is closed" if self._closed else "the body is open")
        return "; ".join(parts)

    # The following methods are for the thread that reads.

    def _answer(self, status: str, headers: list[tuple[str, str]]) -> None:
        self._received.begin(status, headers)
        self._changes.wake()

    def _may_read(self, cut: Callable[[], bool] | None = None) -> bool:
        """Wait while the client does not read. Returns False if it has left or ``cut``, which is polled, is true."""
        while (self._stalled or self._received.is_full) and not self._left:
            if cut is not None and cut():
                return False
            self._changes.wait(lambda: self._left or not (self._stalled or self._received.is_full), 0.05)
        return not self._left

    def _add(self, events: list[Event], last_event_id: str, retry: int | None) -> None:
        self._received.add(events, last_event_id, retry)
        self._changes.wake()

    def _end(self, error: BaseException | None = None) -> None:
        if self._error is None and not self._left:
            self._error = error
        self._ended = True
        self._changes.wake()

    def _body_closed(self) -> None:
        # The server closes its answer of a detached stream, which continues.
        if self._event_stream is None or not self._event_stream.defer(self._has_closed):
            self._has_closed()

    def _has_closed(self) -> None:
        self._closed = True
        self._changes.wake()

    def _find_event_stream(self) -> None:
        """Find the stream of this test's request among those of the process."""
        if self._event_stream is None:
            for stream in streams.all():
                if isinstance(stream, EventStream) and environ_of(stream).get(MARK) is self:
                    self._event_stream = stream

    def _leave(self) -> None:
        self._left = True
        self._changes.wake()

    # The following methods are for the test's threads.

    def _wait_for_answer(self) -> None:
        self._wait(lambda: self._answered or self._ended, None, "an answer")
        if not self._answered:
            raise self._error or EndOfStream(f"the server has sent no answer: {self}")

    @property
    def _answered(self) -> bool:
        return bool(self._received.status)

    def _wait(self, ready: Callable[[], bool], timeout: float | None, what: str) -> None:
        seconds = self.timeout if timeout is None else timeout
        if not self._changes.wait(ready, seconds):
            raise WaitTimeout(f"waited {seconds:.3g} s for {what}. {self}")

    def _take(self, timeout: float | None, what: str) -> ReceivedEvent | None:
        received = self._received
        if not received.is_stream and received.status[:3] != "204":
            raise self._no_stream()
        until = _Deadline(self.timeout if timeout is None else timeout)
        while True:
            self._wait(lambda: bool(received.pending) or self._ended, until.left(), what)
            ended = self._ended  # read before the events, as it is set after the last of them
            with self._taking:
                if (event := received.take()) is not None:
                    self._last_event_id = event.id
                    break
            if ended:
                if self._error is not None:
                    raise self._error
                self._last_event_id = received.last_event_id
                return None
        self._changes.wake()
        return event

    def _no_stream(self) -> Exception:
        body = self.body
        if not self._received.status.startswith("200"):
            return StatusError(f"status {self._received.status} instead of 200: {self}", self, body)
        return ContentTypeError(f"no event stream: {self}", self, body)


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())
