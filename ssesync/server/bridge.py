"""An asynchronous producer whose events a thread writes, which may wait: that of a run."""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ..errors import CloseReason
from ..locks import Once
from ..producing import Producing, Target
from .event_loop import EventLoop, event_loop

__all__ = ["Bridge", "close_async"]

# Events that may wait for the thread, and after how many written ones it lets the producer continue.
_MOST, _PIECE = 64, 16

_END = object()


class Bridge(Producing):
    """Runs a producer on the event loop, and writes its events on the thread that calls :meth:`produce`.

    :param iterate: makes the asynchronous iterator, on the loop.
    :param discard: called in place of it, if the producer is not to run.
    """

    def __init__(self, iterate: Callable[[], Awaitable[AsyncIterator[Any]]], discard: Callable[[], object]) -> None:
        self._iterate = iterate
        self._discard = discard
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_MOST)
        self._loop: EventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._cancels = Once()
        self._has_begun = self._is_cancelled = False

    def produce(self, writer: Target) -> None:
        """Write all events. Ends at :meth:`close`, without those that wait.

        :raises Exception: the producer's.
        """
        loop = self._loop = event_loop()
        loop.add(self)
        loop.call_soon(self._begin, contextvars.copy_context())
        try:
            count = 0
            while (item := self._items.get()) is not _END:
                writer.write(item)
                count += 1
                if not count % _PIECE:
                    loop.call_soon(self._give_room)
        except BaseException:
            self.close()
            while self._items.get() is not _END:
                pass
            raise
        finally:
            loop.remove(self)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Cancel the producer. Any thread, any number of times."""
        self.cancel(CloseReason.CANCELLED)

    def cancel(self, reason: CloseReason | str) -> None:
        """Cancel the producer, at the interpreter's exit."""
        if self._cancels():
            if self._loop is None:
                self._discard()
            else:
                self._loop.call_soon(self._cancel_now)

    # The loop's thread.

    def _begin(self) -> None:
        assert self._loop is not None
        self._task = self._loop.loop.create_task(self._run())

    def _give_room(self) -> None:
        for _ in range(_PIECE):
            self._room.release()

    def _cancel_now(self) -> None:
        if self._task is not None and self._has_begun:  # see AsyncSource
            self._is_cancelled = True
            self._task.cancel()

    async def _run(self) -> None:
        self._has_begun = True
        try:
            if self._cancels.done:
                self._discard()
            else:
                await self._pass_all(await self._iterate())
        except BaseException as error:
            if not (isinstance(error, asyncio.CancelledError) and self._cancels.done):
                self._error = error
        finally:
            self._task = None
            self._items.put(_END)

    async def _pass_all(self, items: AsyncIterator[Any]) -> None:
        try:
            async for item in items:
                if self._is_cancelled:
                    return  # it has caught its cancellation and goes on, and there may never be room again
                await self._room.acquire()
                self._items.put(item)
        finally:
            await close_async(items)


async def close_async(items: object) -> None:
    """Close an asynchronous generator, or another iterator that has an ``aclose()``."""
    aclose = getattr(items, "aclose", None)
    if aclose is not None:
        await aclose()
