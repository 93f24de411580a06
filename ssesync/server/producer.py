"""Sources: what runs a producer and holds its output for the thread that serves the client.

``Pump`` runs it in a thread of its own, so that the server's thread is free at once when the client leaves or
the process stops, although the producer may sit in a slow call until its next step. ``Inline`` runs it in the
server's thread, step by step. Both close a generator on the thread that ran it and carry exceptions over: into the
view before the first event, into the log and an ``error`` event after it.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from ..errors import CloseReason, StreamClosed
from ..locks import make_lock
from ..settings import Settings
from ..text import escape
from .checks import check_function, check_iterable
from .writer import Writer

__all__ = ["Inline", "Pump", "Source"]

logger = logging.getLogger("ssesync")

#: Entered on the producer's thread round all that it does (framework contexts, database connections).
Scope = Callable[[], AbstractContextManager[Any]]

#: A producer, given the stream's writer: a generator's items are still to be written, a function's writes were made.
Producer = Callable[[Writer], "Iterator[Any] | None"]


class Produces(Protocol):
    """Something from another room that writes by itself, a relay for one."""

    def produce(self, writer: Writer) -> None:
        """Write until the end, on a thread of the stream's."""

    def close(self) -> None:
        """Let go of what it reads from. Any thread, any number of times."""


class Source(Protocol):
    """What a stream drains. Its methods may be called from any thread."""

    error: BaseException | None
    """What it failed with, if that is to be told to the client."""

    def take(self, timeout: float | None) -> list[bytes] | None:
        """Wait up to ``timeout`` seconds for bytes. ``[]``: none came; ``None``: the end, see ``reason``."""

    def cancel(self, reason: CloseReason | str) -> None:
        """End at once and wake whoever waits. Any number of times."""

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End cleanly: give what waits, then ``last``."""

    @property
    def reason(self) -> CloseReason | None:
        """Why the source ended, ``None`` while it has not."""

    @property
    def resumable(self) -> bool:
        """Whether the client was given an event ID that it can come back with."""


def from_iterable(source: Iterable[Any] | Callable[[], Iterable[Any]]) -> Producer:
    """The producer that gives an iterable's items; a callable is called for it first, on the producer's thread.

    :raises TypeError: it is nothing that yields events.
    """
    if callable(source):
        check_function(source)
    else:
        check_iterable(source)

    def produce(writer: Writer) -> Iterator[Any]:
        items = source() if callable(source) else source
        check_iterable(items)
        return iter(items)

    return produce


def from_function(function: Callable[[Writer], object]) -> Producer:
    """The producer that calls ``function`` with the writer.

    What it returns has no meaning, but for a generator or coroutine: then nothing of it was run.

    :raises TypeError: it is a coroutine function or a generator function.
    """
    check_function(function)
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{name_of(function)}() yields, but it is given a writer: let it write to that, w.write(…), or stream what "
            "it yields, with event_stream or EventStream(function)"
        )

    def produce(writer: Writer) -> None:
        result = function(writer)
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            result.close()
            kind = "yields" if inspect.isgenerator(result) else "is asynchronous"
            raise TypeError(f"{function!r} {kind}, but a function that is given a writer writes to it")

    return produce


class WriterFunction:
    """A function that is given a writer, as the source of a stream.

    :raises TypeError: it is none.
    """

    def __init__(self, function: Callable[[Writer], object]) -> None:
        if not callable(function):
            raise TypeError(f"from_writer takes a function that is given a Writer, got {type(function).__name__}")
        self.function = function


def producer_of(source: Any) -> Producer | None:
    """How to run ``source``; None for a source that runs by itself."""
    if isinstance(source, WriterFunction):
        return from_function(source.function)
    if hasattr(source, "produce"):
        return cast(Producer, source.produce)
    if hasattr(source, "take") and hasattr(source, "cancel"):
        return None
    return from_iterable(source)


def name_of(source: Any) -> str:
    """What a source is called, for log lines."""
    source = getattr(source, "function", source)
    source = getattr(source, "func", source)  # functools.partial
    return getattr(source, "__qualname__", None) or type(source).__name__


class Pump:
    """Runs a producer in a thread, with a copy of the context it was made in."""

    def __init__(self, produce: Producer, writer: Writer, scope: Scope | None, name: str) -> None:
        self._produce = produce
        #: Where the producer's output waits.
        self.writer = writer
        self._scope = scope or contextlib.nullcontext
        self._name = name
        self._context = contextvars.copy_context()
        self._lock = make_lock("server.pump")
        self._committed = False
        self._error: BaseException | None = None
        #: See :class:`Source`.
        self.error: BaseException | None = None
        # A daemon, so that a producer stuck in a slow call can't hold up the interpreter's exit.
        self.thread = threading.Thread(
            target=self._context.run, args=(self._run,), name=f"ssesync-{escape(self._name)}", daemon=True
        )

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Source`."""
        return self.writer.reason

    @property
    def resumable(self) -> bool:
        """See :class:`Source`."""
        return self.writer.resumable

    def open(self, timeout: float) -> None:
        """Start the producer, wait up to ``timeout`` seconds for its first event, raise what it raised before."""
        self.thread.start()
        if timeout:
            self.writer.wait(timeout)
        with self._lock:
            self._committed = True
            error, self._error = self._error, None
        if error is not None:
            raise error

    def take(self, timeout: float | None) -> list[bytes] | None:
        """See :class:`Source`."""
        return self.writer.take(timeout)

    def cancel(self, reason: CloseReason | str) -> None:
        """See :class:`Source`."""
        self.writer.cancel(reason)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """See :class:`Source`."""
        self.writer.stop(reason, last)

    def close(self) -> None:
        """The producer's own thread cleans up; it was told by :meth:`cancel`."""
        self.error = None  # its traceback holds the frames of the producer

    def _run(self) -> None:
        self.writer.producer = threading.get_ident()
        try:
            with self._scope():
                items = self._produce(self.writer)
                if items is not None:
                    _write_all(items, self.writer)
        except BaseException as error:
            if not _is_own_end(error, self.writer):
                self._failed(error)
        finally:
            self.writer.close()

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            if not self._committed and not self.writer.events:
                self._error = error
                self.writer.fail()
                return
        log_failure(self._name, error)
        self.error = error
        self.writer.fail()


class Inline:
    """Runs a producer in the thread that takes, in a copy of the context it was made in.

    A generator makes one step for each take. A function runs to its end first, and what it wrote is kept: so it
    may write no more than ``LIMIT`` events.
    """

    #: An imperative view that is run in a test without a thread can't wait for its client, which is the same thread.
    LIMIT = 10_000

    def __init__(self, produce: Producer, writer: Writer, scope: Scope | None, name: str) -> None:
        self._produce = produce
        #: Where the producer's output waits.
        self.writer = writer
        self._scope = scope or contextlib.nullcontext
        self._name = name
        self._context = contextvars.copy_context()
        self._steps: Generator[None, None, None] | None = None
        #: See :class:`Source`.
        self.error: BaseException | None = None
        self._open = False
        self._stepping = self._closing = False
        self._ready: list[bytes] | None = []

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Source`."""
        return self.writer.reason

    @property
    def resumable(self) -> bool:
        """See :class:`Source`."""
        return self.writer.resumable

    def open(self, timeout: float) -> None:
        """Make the first step, unless ``timeout`` is 0; raise what it raises. Nothing can bound the time it takes."""
        if timeout:
            self._ready = self.take(None)
        self._open = True

    def take(self, timeout: float | None) -> list[bytes] | None:
        """Step until there are bytes; ``timeout`` has no say."""
        if self._ready is None or self._ready:
            ready, self._ready = self._ready, []
            return ready
        if self._steps is None:
            self._steps = self._run()
        while self.writer.reason is None:
            if not self._step():
                break
            if items := self.writer.take(0):
                return items
        return self.writer.take(0)

    def cancel(self, reason: CloseReason | str) -> None:
        """See :class:`Source`."""
        self.writer.cancel(reason)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """See :class:`Source`."""
        self.writer.stop(reason, last)

    def close(self) -> None:
        """Close the generator, on the thread that ran it: the one that serves the client."""
        self._closing = True
        if self._stepping:
            return  # a signal handler has interrupted the step, at whose end this is done
        steps, self._steps, self.error = self._steps, None, None
        if steps is not None:
            try:
                self._context.run(steps.close)
            except Exception as error:
                log_failure(self._name, error)

    def _step(self) -> bool:
        assert self._steps is not None
        self.writer.producer = threading.get_ident()
        try:
            self._stepping = True
            try:
                self._context.run(next, self._steps)
            finally:
                self._stepping = False
                if self._closing:
                    self.close()
            return True
        except StopIteration:
            self.writer.close()
        except Exception as error:
            if not _is_own_end(error, self.writer):
                if not self._open and not self.writer.events:
                    self.writer.fail()
                    raise
                log_failure(self._name, error)
                self.error = error
                self.writer.fail()
        return False

    def _run(self) -> Generator[None, None, None]:
        with self._scope():
            items = self._produce(self.writer)
            if items is None:
                return
            try:
                for item in items:
                    self.writer.write(item)
                    yield
            finally:
                _close(items)


class Collecting(Writer):
    """The writer of a function that runs in the thread which would have to make room for it."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings.replace(max_pending_events=Inline.LIMIT), **options)

    def _put(self, data: bytes, events: int, resumable: bool | None = None) -> None:
        if not self.closed and self._mailbox.pending[0] >= Inline.LIMIT:
            raise RuntimeError(
                f"the view wrote {Inline.LIMIT:,} times without a thread of its own, where all of it is kept until "
                "it returns (this is so under the frameworks' test clients); run it under a live server instead"
            )
        super()._put(data, events, resumable)


def log_failure(name: str, error: BaseException) -> None:
    """Log what a producer raised when it was too late for an error response."""
    logger.error("the producer of the event stream %s failed", escape(name), exc_info=error)


def _write_all(items: Iterator[Any], writer: Writer) -> None:
    try:
        for item in items:
            writer.write(item)
    finally:
        _close(items)


def _close(items: Iterator[Any]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()


def _is_own_end(error: BaseException, writer: Writer) -> bool:
    """Whether this is only how a producer learns that its own stream is over."""
    return isinstance(error, StreamClosed) and writer.closed
