"""Sources that run user code, and queue its writes until the consumer pulls them.

:class:`ThreadProducer` runs it on a thread of its own, so that the server's thread is free at once when the client
leaves or the process stops, although the code may still wait in a slow call. :class:`InlineProducer` runs it on the
consumer's thread, step by step. Both close a generator on the thread that ran it. The view raises an exception of the
code before the first event; a later one is logged, and the client is sent an ``error`` event.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..cancel import CancelToken
from ..errors import CloseReason, StreamClosed
from ..locks import Once
from ..text import escape
from .databases import warn_of_database
from .mailbox import Mailbox
from .producers import Slot, producers
from .source import Overload, Pending, Pulled, Refusal
from .starts import views
from .writer import Writer, WriterSource

if TYPE_CHECKING:
    from .factory import Producer
    from .spec import StreamSpec

__all__ = ["InlineProducer", "ThreadProducer", "close_iterator"]

logger = logging.getLogger("ssesync")

#: Entered on the producer's thread before it runs, and left after (framework contexts, database connections).
Scope = Callable[[], AbstractContextManager[Any]]


class ProducerWriter(Writer):
    """The writer of a producer that the stream runs.

    :param source: the source that it writes to.
    :param spec: the stream's options.
    :param last_event_id: the client's.
    """

    def __init__(self, source: ProducerSource, spec: StreamSpec, last_event_id: str) -> None:
        self._write_to(source, spec.settings, spec.dumps, last_event_id)
        self._after_step = spec.after_step
        self._producer = source

    def _end_step(self) -> None:
        if self._after_step is not None and self._producer.thread == threading.get_ident():
            self._after_step()


class ProducerSource(WriterSource):
    """A source that runs a producer. The writer refers to this, and this not to the writer: they are no cycle for the
    garbage collector.

    :param mailbox: the queue of its writes.
    :param producer: the user's code.
    :param spec: the stream's options.
    :param cancelled: the stream's token.
    :param last_event_id: the client's.
    """

    def __init__(
        self, mailbox: Mailbox, producer: Producer, spec: StreamSpec, cancelled: CancelToken, last_event_id: str
    ) -> None:
        super().__init__(mailbox, cancelled)
        self._producer = producer
        self._spec = spec
        self._scope = spec.scope or contextlib.nullcontext
        self._last_event_id = last_event_id
        #: The thread that runs the producer, while it does.
        self.thread: int | None = None
        #: See :class:`Source`.
        self.error: BaseException | None = None

    def _make_writer(self) -> ProducerWriter:
        return ProducerWriter(self, self._spec, self._last_event_id)

    def _is_own_end(self, error: BaseException) -> bool:
        """Whether an exception only reports to the producer that its own stream is over."""
        return isinstance(error, StreamClosed) and self.reason is not None


class ThreadProducer(ProducerSource):
    """Runs a producer on a thread, with a copy of the context in which it was made."""

    def __init__(
        self, producer: Producer, spec: StreamSpec, cancelled: CancelToken, last_event_id: str, slot: Slot
    ) -> None:
        settings = spec.settings
        self._slot = slot
        mailbox = Mailbox(settings.max_pending_events, settings.max_pending_bytes)
        super().__init__(mailbox, producer, spec, cancelled, last_event_id)
        # Called by the view when the answer begins, and by a producer that fails: if that is first, the view raises.
        self._begun = Once()
        self._failure: BaseException | None = None
        # A daemon, so that a producer in a slow call can't delay the interpreter's exit.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name=f"ssesync-{escape(spec.name)}", daemon=True
        )

    def open(self, wait: float) -> Refusal | Overload | None:
        """Start the producer; see :class:`Source`."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self._slot.release()
            producers.warn_of_threads(error)
            return Overload("too many event streams")
        if wait:
            self.mailbox.wait(wait)
        if not self._begun() and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return None

    def close(self) -> None:
        """Release the producer. Its thread ends by itself: the end of the stream wakes it."""
        self.error = None  # its traceback refers to the frames of the producer
        self._slot.end_stream()
        self._producer.release()

    def join(self, timeout: float) -> bool:
        """See :class:`Source`."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.thread = threading.get_ident()
        try:
            with self._scope():
                writer = self._make_writer()
                items = self._producer.run(writer)
                if items is not None:
                    _write_all(items, writer)
        except BaseException as error:
            if not self._is_own_end(error):
                self._fail(error)
        finally:
            self.mailbox.close(CloseReason.DONE)
            self._slot.release()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        warn_of_database(self._spec.name, error)
        if not self.events:
            views.raised(self._producer.view())
        if self.events or not self._begun():
            self._failure = None
            log_failure(self._spec.name, error)
            self.error = error
        self.mailbox.close(CloseReason.ERROR)


class InlineProducer(ProducerSource):
    """Runs a producer on the thread that pulls, in a copy of the context in which it was made.

    A generator makes a step for each pull. A function runs to its end at the first pull, and its writes are queued: so
    it may write no more than ``LIMIT`` times.
    """

    # Never called: no consumer waits for this source, as each pull() returns bytes or the end.
    on_ready: Callable[[], object] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
    #: A function with a writer, run in a test without a thread, can't wait for its client: that is the same thread.
    LIMIT = 10_000

    def __init__(self, producer: Producer, spec: StreamSpec, cancelled: CancelToken, last_event_id: str) -> None:
        super().__init__(Mailbox(self.LIMIT, sys.maxsize), producer, spec, cancelled, last_event_id)
        self._context = contextvars.copy_context()
        self._steps: Generator[None, None, None] | None = None
        self._begun = self._stepping = self._closing = False

    def open(self, wait: float) -> Refusal | None:
        """Run to the first write, unless ``wait`` is 0; the time can't be bounded. See :class:`Source`."""
        if wait:
            while not (self.mailbox.pending[0] or self.reason):
                self._step()
        self._begun = True
        return None

    def pull(self, most: int) -> Pulled:
        """Step until there are bytes to pull; see :class:`Source`."""
        if self.mailbox.is_idle:
            self._step()  # the usual case: it saves a pull for each event
        while isinstance(pulled := self.mailbox.pull(most), Pending):
            self._step()
        return pulled

    def put(self, data: bytes, events: int, resumable: bool | None = None) -> None:
        """Add a write; see :class:`WriterSource`.

        :raises RuntimeError: the queue is full, and can't be emptied while this thread runs the producer.
        """
        if not self.mailbox.offer(data, events=events):
            raise RuntimeError(
                f"the view wrote {self.LIMIT:,} times without a thread of its own, and its writes are queued until it "
                "returns (so it is under the frameworks' test clients); run it under a live server instead"
            )
        if resumable is not None:
            self._resumable = resumable

    def close(self) -> None:
        """Close the generator, on the thread that ran it: the one that serves the client."""
        self._closing = True
        if self._stepping:
            return  # a signal handler has interrupted the step, which closes the generator at its end
        steps, self._steps, self.error = self._steps, None, None
        try:
            if steps is not None:
                self._context.run(steps.close)
        except Exception as error:
            log_failure(self._spec.name, error)
        finally:
            self._producer.release()

    def _step(self) -> None:
        if self._steps is None:
            self._steps = self._run()
        self.thread = threading.get_ident()
        try:
            self._stepping = True
            try:
                self._context.run(next, self._steps)
            finally:
                self._stepping = False
                if self._closing:
                    self.close()
        except StopIteration:
            self.mailbox.close(CloseReason.DONE)
        except Exception as error:
            if self._is_own_end(error):
                return
            may_raise = not self._begun and not self.events
            if not may_raise:
                log_failure(self._spec.name, error)
                self.error = error
            self.mailbox.close(CloseReason.ERROR)
            if may_raise:
                raise

    def _run(self) -> Generator[None, None, None]:
        with self._scope():
            writer = self._make_writer()
            items = self._producer.run(writer)
            if items is None:
                return
            try:
                for item in items:
                    writer.write(item)
                    yield
            finally:
                close_iterator(items)


def log_failure(name: str, error: BaseException) -> None:
    """Log an exception of a producer that came too late for an error response."""
    logger.error("the producer of the event stream %s failed", escape(name), exc_info=error)


def close_iterator(items: object) -> None:
    """Close a generator, or another iterator that has a ``close()``."""
    close = getattr(items, "close", None)
    if close is not None:
        close()


def _write_all(items: Iterator[Any], writer: Writer) -> None:
    try:
        for item in items:
            writer.write(item)
    finally:
        close_iterator(items)
