"""Asynchronous producers: the event loop of this process runs all of them, so that they take no threads.

:class:`AsyncSource` runs one as a task. Its writes wait in the same bounded mailbox as those of a producer's thread;
while that is full the task waits, and the producer is not asked for more. The end of the stream cancels the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast

from ..cancel import CancelToken
from ..errors import CloseReason, StreamClosed, excerpt
from ..event import written_id
from ..executor import callers
from ..json_encoder import dump_json
from ..locks import Once, Waiters
from ..producing import Producing
from ..settings import Settings
from ..wire.encoder import encode
from .bridge import Bridge, close_async
from .event_loop import EventLoop, event_loop
from .factory import SourceFactory, name_of
from .mailbox import Mailbox
from .producer import log_failure
from .producers import Slot, producers
from .source import Overload, Pulled, Refusal, Source
from .spec import StreamSpec
from .starts import views
from .writer import WriterSource, to_event

__all__ = ["AsyncProducer", "from_async"]

# Events after which a producer that never waits lets others run: some 0.3 ms of the loop's time.
_TURN = 64


def from_async(producer: AsyncIterable[Any] | Callable[[], Any] | Awaitable[Any]) -> AsyncProducer:
    """Stream what an asynchronous producer yields, in a synchronous view.

    ::

        @app.get("/answer")
        @event_stream
        def answer():
            return from_async(agent.run(request.args["q"]))

    All asynchronous producers of a process run as tasks on one event loop, on a thread of its own, with the context
    variables of the view; so none of them may block. When the client leaves, the task is cancelled: the producer gets
    ``asyncio.CancelledError`` where it waits, and an asynchronous generator is closed. While the client does not read,
    the producer is asked for no more than ``max_pending_events``.

    :param producer: an asynchronous iterable of events, such as an asynchronous generator; a coroutine that returns
        one; or a function without arguments that returns either. A function is called on the loop, as it must be if
        it makes objects that belong to a loop, and the stream can be served many times.
    :return: a source for :class:`ssesync.EventStream` and for the responses of the integrations.
    :raises TypeError: it is none of these.
    """
    return AsyncProducer(producer)


class AsyncProducer(SourceFactory):
    """What :func:`from_async` returns."""

    may_read_body = True

    def __init__(self, producer: AsyncIterable[Any] | Callable[[], Any] | Awaitable[Any]) -> None:
        self._is_given = isinstance(producer, (AsyncIterable, Awaitable))
        if not (self._is_given or (callable(producer) and not inspect.isgeneratorfunction(producer))):
            raise TypeError(
                f"from_async takes an asynchronous iterable of events, or a function that returns one, got "
                f"{excerpt(producer)}: what is synchronous is streamed without it"
            )
        self.repeatable = not self._is_given
        super().__init__(type(producer).__name__ if self._is_given else name_of(cast(Any, producer)), producer)

    def is_detachable(self, settings: Settings) -> bool:
        """See :class:`SourceFactory`."""
        return settings.threaded

    def reserve(self, spec: StreamSpec) -> Slot | None:
        """See :class:`SourceFactory`. It counts as a producer, but takes no thread."""
        return producers.reserve(self.view(), spec.name, spec.settings, spec.max_of_view, thread=False)

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        """See :class:`SourceFactory`."""
        return AsyncSource(self, spec, cancelled, slot)

    def discard(self) -> None:
        """Close a coroutine that will not be awaited, of which Python would warn."""
        if inspect.iscoroutine(self._user_object):
            self._user_object.close()

    def as_producing(self) -> Producing:
        """See :class:`SourceFactory`."""
        return Bridge(self.iterate, self.discard)

    async def iterate(self) -> AsyncIterator[Any]:
        """Make the iterator, on the loop.

        :return: the iterator.
        :raises TypeError: the function has returned nothing that can be iterated over asynchronously.
        """
        made = self._user_object if self._is_given else cast(Any, self._user_object)()
        if isinstance(made, Awaitable) and not isinstance(made, AsyncIterable):
            made = await made
        if not isinstance(made, AsyncIterable):
            raise TypeError(
                f"from_async needs an asynchronous iterable of events, and {self.name} has returned {excerpt(made)}"
            )
        return aiter(made)


class AsyncSource(WriterSource):
    """Runs an asynchronous producer as a task, with a copy of the context in which this was made.

    :param producer: the user's object.
    :param spec: the stream's options.
    :param cancelled: the stream's token.
    :param slot: its slot among the producers of this process.
    """

    def __init__(self, producer: AsyncProducer, spec: StreamSpec, cancelled: CancelToken, slot: Slot) -> None:
        super().__init__(Mailbox(spec.settings.max_pending_events, spec.settings.max_pending_bytes), cancelled)
        #: See :class:`Source`.
        self.error: BaseException | None = None
        self._producer = producer
        self._spec = spec
        self._slot = slot
        self._context: contextvars.Context | None = contextvars.copy_context()
        self._loop: EventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None  # set while the task waits for room in the mailbox
        self._cancels = Once()  # a second cancellation would interrupt what the producer does at the first
        # See ThreadProducer.
        self._begun = Once()
        self._failure: BaseException | None = None
        self._has_begun = self._over = False
        self._ended = Waiters()

    def open(self, wait: float) -> Refusal | Overload | None:
        """Start the producer; see :class:`Source`. Where ``threaded`` is off, as under the frameworks' test clients,
        the wait for the first write has no limit."""
        try:
            loop = self._loop = event_loop()
        except (RuntimeError, OSError) as error:
            self._discard()
            producers.warn_of_threads(error)
            return Overload("too many event streams")
        loop.add(self)
        context, self._context = self._context, None
        loop.call_soon(self._begin, context)
        if wait:
            self.mailbox.wait(wait if self._spec.settings.threaded else threading.TIMEOUT_MAX)
        if not self._begun() and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return None

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`."""
        pulled = self.mailbox.pull(most)
        # Only the task sets it: it may have found room meanwhile, have filled that, and wait with another one.
        if (room := self._room) is not None and not room.done() and self._loop is not None:
            self._loop.call_soon(functools.partial(_resolve, room))
        return pulled

    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        """See :class:`Source`."""
        super().cancel(reason, dropped=dropped)
        self._cancel_task()

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """See :class:`Source`."""
        super().stop(reason, last)
        self._cancel_task()

    def close(self) -> None:
        """Release the producer. Its task ends by itself, when it has closed what it has open."""
        self.error = None  # its traceback refers to the frames of the producer
        self._slot.end_stream()
        self.mailbox.close(CloseReason.CANCELLED)
        if self._loop is None:
            self._discard()
        else:
            self._cancel_task()

    def join(self, timeout: float) -> bool:
        """See :class:`Source`."""
        return self._ended.wait(lambda: self._over or self._loop is None, timeout)

    def _cancel_task(self) -> None:
        if self._loop is not None and not self._over and self._cancels():
            self._loop.call_soon(self._cancel_now)

    def _discard(self) -> None:
        self._producer.discard()
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._slot.release()
        if self._loop is not None:
            self._loop.remove(self)
        self._ended.wake()

    # The loop's thread.

    def _begin(self) -> None:
        assert self._loop is not None
        self._task = self._loop.loop.create_task(self._run())

    def _cancel_now(self) -> None:
        # A task that is cancelled before its first step would not take any.
        if self._task is not None and self._has_begun:
            self._task.cancel()

    async def _run(self) -> None:
        self._has_begun = True
        try:
            if self.reason is not None:
                self._producer.discard()
                return
            with (self._spec.scope or contextlib.nullcontext)():
                await self._write_all(await self._producer.iterate())
        except BaseException as error:  # sys.exit() too, which would end the loop
            is_own_end = isinstance(error, (StreamClosed, asyncio.CancelledError)) and self.reason is not None
            if not is_own_end:
                self._fail(error)
        finally:
            self._task = None
            self.mailbox.close(CloseReason.DONE)
            self._finish()

    async def _write_all(self, items: AsyncIterator[Any]) -> None:
        dumps, after_step, offer = self._spec.dumps or dump_json, self._spec.after_step, self.mailbox.offer
        count = 0
        try:
            async for item in items:
                event = to_event(item, dumps)
                data, events = encode(event), int(event.data is not None)
                if not offer(data, events=events):
                    await self._wait_for_room(data, events)
                if (event_id := written_id(event)) is not None:
                    self._resumable = event_id != ""
                if after_step is not None:
                    after_step()
                count += 1
                if not count % _TURN:
                    await asyncio.sleep(0)
        finally:
            await close_async(items)

    async def _wait_for_room(self, data: bytes, events: int) -> None:
        """Add a write when the mailbox is not full any more."""
        while True:
            room = self._room = asyncio.get_running_loop().create_future()  # before the offer: a pull after it sees it
            if self.mailbox.offer(data, events=events):
                self._room = None
                return
            await room

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        if not self.events:
            views.raised(self._producer.view())
        if self.events or not self._begun():
            self._failure = None
            # A handler may wait, and so would all producers.
            log = functools.partial(log_failure, self._spec.name, error)
            callers().submit(functools.partial(contextvars.copy_context().run, log))
            self.error = error
        self.mailbox.close(CloseReason.ERROR)


def _resolve(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
