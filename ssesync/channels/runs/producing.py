"""Runs a producer for a run, on a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ...cancel import CancelToken
from ...errors import CloseReason, RunRefused, StreamClosed, excerpt
from ...producing import Producing
from ...server.checks import check_function, check_iterable
from ...server.databases import warn_of_database
from ...server.factory import Items, Producer, SourceFactory, Upstream, WriterFunction
from ...server.producer import close_iterator
from ...server.producers import Slot, producers
from ...server.writer import Writer
from ...text import escape
from .ending import Ending
from .options import RunOptions
from .record import RunState

__all__ = ["ProducerThread", "producer_of"]

logger = logging.getLogger("ssesync")


class ProducedRun(Protocol):
    """The run that is produced."""

    options: RunOptions

    @property
    def cancelled(self) -> CancelToken:
        """Set when the run ends before its producer does."""
        ...

    @property
    def reason(self) -> CloseReason | None:
        """Why the writer is closed, ``None`` while it is not."""
        ...

    def make_writer(self) -> Writer:
        """Make the producer's writer."""
        ...

    def end(self, ending: Ending) -> bool:
        """End the run."""
        ...

    def fail(self, error: BaseException) -> None:
        """End the run, as its producer has failed."""


class UpstreamRefused(Exception):
    """A relay's upstream has not answered with an event stream."""


class Function(Producer):
    """A function with its arguments, which gives what makes the events."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        check_function(function)
        super().__init__("function", function)
        self._call = functools.partial(function, *args)
        self._upstream: Producing | None = None

    def run(self, writer: Writer) -> Iterator[Any] | None:
        """See :class:`Producer`."""
        made = self._call()
        if made is None:
            raise TypeError(
                f"{excerpt(self._user_object)} has returned None: yield events, return an iterable of them, or give "
                "writer=True, and it is called with a Writer"
            )
        if isinstance(made, SourceFactory):
            made = made.as_producing() or made
        if isinstance(made, Producing):
            self._upstream = made
            _run_upstream(made, writer)
            return None
        check_iterable(made)
        given: Any = made
        items: Iterator[Any] = iter(given)
        return items

    def release(self) -> None:
        """See :class:`Producer`."""
        if self._upstream is not None:
            self._upstream.close()

    def discard(self) -> None:
        """Release nothing: nothing was called."""


class WritingFunction(WriterFunction):
    """A function that is given a writer before its arguments."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(function)
        if args:
            self._function = functools.partial(_with_writer, function, args)


class RunUpstream(Upstream):
    """A relay."""

    def run(self, writer: Writer) -> None:
        """See :class:`Producer`. An upstream that answers with something else than a stream is a failure."""
        _run_upstream(self._relay, writer)


def _with_writer(function: Callable[..., Any], args: tuple[Any, ...], writer: Writer) -> object:
    return function(writer, *args)


def _run_upstream(upstream: Producing, writer: Writer) -> None:
    answer = upstream.answered() if upstream.exchange is not None else upstream.answer
    if answer is not None:
        raise UpstreamRefused(f"the upstream has answered {answer.status}")
    upstream.produce(writer)


def producer_of(given: Any, args: tuple[Any, ...], options: RunOptions) -> Producer:
    """Make a producer of an application's object.

    :param given: the producer.
    :param args: its arguments.
    :param options: the run's.
    :return: the producer, which is to be run or discarded.
    :raises TypeError: it is nothing that gives events, or asynchronous.
    """
    if isinstance(given, SourceFactory):
        given = given.as_producing() or given
    if callable(given):
        return WritingFunction(given, args) if options.writer else Function(given, args)
    if args or options.writer:
        raise TypeError(f"a producer with arguments, or with writer=True, is a function, got {excerpt(given)}")
    return RunUpstream(given) if isinstance(given, Producing) else Items(given)


class ProducerThread:
    """The thread that runs a producer. It is a daemon: a producer that is stuck in a call can't hold up an exit.

    It has a context of its own, without that of the request that has started the run: that request, its client's
    connection and all that they refer to are gone long before the run ends.

    :param run: the run.
    :param producer: the producer.
    :param slot: its slot among the producers of this process.
    """

    def __init__(self, run: ProducedRun, producer: Producer, slot: Slot) -> None:
        self._run = run
        self._producer = producer
        self._slot = slot
        self._thread = threading.Thread(target=self._work, name=f"ssesync-run-{escape(slot.name)}", daemon=True)

    def start(self) -> None:
        """Start it.

        :raises RunRefused: there can be no more threads.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self._slot.release()
            producers.warn_of_threads(error)
            raise RunRefused(f"no thread can be started for the run {excerpt(self._slot.name)}") from error

    def _work(self) -> None:
        run, producer = self._run, self._producer
        # A call of the producer that reads an upstream is ended by that.
        run.cancelled.add_callback(producer.release)
        try:
            with (run.options.scope or contextlib.nullcontext)():
                writer = run.make_writer()
                items = producer.run(writer)
                if items is not None:
                    _write_all(items, writer)
        except BaseException as error:
            if not (isinstance(error, StreamClosed) and run.reason is not None):
                self._fail(error)
        finally:
            try:
                run.end(Ending(RunState.STOPPED if run.cancelled.is_set() else RunState.DONE))
            finally:
                self._slot.release()
                with contextlib.suppress(Exception):
                    producer.release()

    def _fail(self, error: BaseException) -> None:
        name = self._slot.name
        warn_of_database(name, error)
        logger.error("the producer of the run %s failed", escape(name), exc_info=error)
        self._run.fail(error)


def _write_all(items: Iterator[Any], writer: Writer) -> None:
    try:
        for item in items:
            writer.write(item)
    finally:
        close_iterator(items)
