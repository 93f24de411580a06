"""Asynchronous producers: what is accepted, how they end, and that they keep the pace of their clients."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ssesync import Event, EventStream, Settings, from_async, streams
from ssesync.server import asynchronous
from ssesync.server.producers import producers
from ssesync.server.stream import join_producer
from tests.cases import each_case

TIMEOUT = 90.0


async def letters() -> AsyncIterator[Any]:
    for letter in "ab":
        await asyncio.sleep(0)
        yield letter


async def later() -> AsyncIterator[Any]:
    await asyncio.sleep(0)
    return letters()


class Letters:
    """Is iterated over anew each time."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return letters()


def read(stream: EventStream) -> bytes:
    try:
        return b"".join(stream({}, lambda *_: None))
    finally:
        stream.close()
        assert join_producer(stream, TIMEOUT)


def rest_of(stream: EventStream) -> bytes:
    data = b"".join(stream)
    stream.close()
    return data


def opened(source: Any, **options: Any) -> EventStream:
    stream = EventStream(from_async(source), **options)
    assert stream.open({}) == "200 OK"
    return stream


@each_case(
    "make",
    [
        pytest.param(letters, id="a generator"),
        pytest.param(lambda: letters, id="a function"),
        pytest.param(lambda: functools.partial(lambda each: each(), letters), id="a function with arguments"),
        pytest.param(later, id="a coroutine"),
        pytest.param(lambda: later, id="a coroutine function"),
        pytest.param(Letters, id="an iterable"),
    ],
)
def test_what_is_accepted(make: Callable[[], Any]) -> None:
    assert read(EventStream(from_async(make()))) == b":ok\ndata: a\n\ndata: b\n\n"


@each_case(
    "source",
    [
        pytest.param([1], id="a list"),
        pytest.param("a", id="text"),
        pytest.param((each for each in "ab"), id="a generator"),
        pytest.param((lambda: (yield)), id="a generator function"),
        pytest.param(None, id="nothing"),
    ],
)
def test_what_is_not(source: Any) -> None:
    with pytest.raises(TypeError, match="from_async takes an asynchronous iterable"):
        from_async(source)


def test_a_function_must_return_something_asynchronous() -> None:
    with pytest.raises(TypeError, match="needs an asynchronous iterable of events"):
        EventStream(from_async(lambda: [1])).open({})


def test_a_function_is_served_many_times_and_a_generator_once() -> None:
    many, once = EventStream(from_async(letters)), EventStream(from_async(letters()))
    assert read(many) == read(many) == read(once)
    with pytest.raises(RuntimeError, match="served already"):
        read(once)


def test_items_are_those_of_any_producer() -> None:
    async def items() -> AsyncIterator[Any]:
        yield Event("one", id=7, type="named")
        yield {"a": [1]}
        yield b"bytes"

    expected = b':ok\nid: 7\nevent: named\ndata: one\n\ndata: {"a":[1]}\n\ndata: bytes\n\n'
    assert read(EventStream(from_async(items))) == expected


def test_it_has_the_context_of_its_view_and_a_thread_of_all() -> None:
    name = contextvars.ContextVar("name", default="none")

    async def names() -> AsyncIterator[str]:
        yield f"{name.get()} {threading.current_thread().name}"
        name.set("changed")
        await asyncio.sleep(0)
        yield name.get()

    for each in ("first", "second"):
        name.set(each)
        expected = f":ok\ndata: {each} ssesync-event-loop\n\ndata: changed\n\n"
        assert read(EventStream(from_async(names))) == expected.encode()
        assert name.get() == each


def test_an_exception_before_the_first_event_is_the_views_and_a_later_one_an_error_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(first: bool) -> AsyncIterator[str]:
        if not first:
            yield "one"
        raise LookupError("secret")

    with pytest.raises(LookupError):
        EventStream(from_async(failing(True))).open({})
    stream = opened(failing(False))
    data = rest_of(stream)
    assert data.startswith(b":ok\ndata: one\n\nevent: error\n")
    assert b"secret" not in data
    assert eventually(lambda: "LookupError: secret" in caplog.text)


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


class Waiting:
    """Sends an event and waits, and then has something to close, which takes a while."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.waits = threading.Event()

    async def __call__(self) -> AsyncIterator[str]:
        try:
            yield "one"
            self.waits.set()
            await asyncio.sleep(TIMEOUT)
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)
            self.notes.append(f"closed on {threading.current_thread().name}")


@each_case(
    "end",
    [
        pytest.param(lambda stream: stream.cancel("client_gone"), id="cancel"),
        pytest.param(lambda stream: stream.stop(), id="stop"),
        pytest.param(lambda stream: stream.close(), id="close"),
    ],
)
def test_the_end_of_the_stream_cancels_it_once_where_it_waits(end: Callable[[EventStream], None]) -> None:
    waiting = Waiting()
    stream = opened(waiting)
    assert waiting.waits.wait(TIMEOUT)
    end(stream)
    stream.cancel()
    stream.close()
    assert join_producer(stream, TIMEOUT)
    assert waiting.notes == ["cancelled", "closed on ssesync-event-loop"]


def test_a_stream_that_ends_before_its_first_step_runs_nothing() -> None:
    started = []

    async def never() -> AsyncIterator[str]:
        started.append(True)
        yield "never"

    held, go = threading.Event(), threading.Event()

    async def holding() -> AsyncIterator[str]:
        held.set()
        go.wait(TIMEOUT)
        yield "one"

    first = EventStream(from_async(holding), first_event_timeout=0)
    first.open({})
    assert held.wait(TIMEOUT)
    second = EventStream(from_async(never()), first_event_timeout=0)
    second.open({})
    second.close()
    go.set()
    first.close()
    assert join_producer(first, TIMEOUT)
    assert join_producer(second, TIMEOUT)
    assert not started


def test_a_coroutine_that_is_not_needed_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    stream = EventStream(from_async(later()))
    assert stream.open({"REQUEST_METHOD": "HEAD"}) == "200 OK"
    stream.close()
    del stream
    assert not recwarn.list


def test_it_is_asked_for_no_more_than_may_wait_and_closed_while_it_waits_for_room() -> None:
    notes: list[Any] = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                notes.append(len(notes))
                yield "x"
        finally:
            notes.append("closed")

    stream = opened(endless, max_pending_events=10)
    chunks = iter(stream)
    next(chunks)
    assert eventually(lambda: stream.stats.events == 10)
    time.sleep(0.01)
    assert len(notes) == 11
    assert next(chunks) == 10 * b"data: x\n\n"
    assert eventually(lambda: len(notes) == 21)
    stream.close()
    assert join_producer(stream, TIMEOUT)
    assert notes[-1] == "closed"


def test_a_pull_that_takes_long_loses_no_later_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer has waited for room twice between two steps of one pull."""
    rooms: list[object] = []
    pulls = threading.Event()

    class Watched(asynchronous.AsyncSource):
        @property
        def _room(self) -> Any:
            room = self.__dict__.get("room")
            if room is not None and not pulls.is_set():
                pulls.set()
                assert eventually(lambda: len(rooms) == 2)
            return room

        @_room.setter
        def _room(self, room: Any) -> None:
            self.__dict__["room"] = room
            if room is not None:
                rooms.append(room)
                assert pulls.wait(TIMEOUT)

    monkeypatch.setattr(asynchronous, "AsyncSource", Watched)
    written: list[int] = []

    async def endless() -> AsyncIterator[str]:
        while True:
            written.append(1)
            yield "x"

    stream = opened(endless, max_pending_events=10)
    chunks = iter(stream)
    next(chunks)
    assert eventually(lambda: len(rooms) == 1)
    for count in (1, 2):
        assert next(chunks) == 10 * b"data: x\n\n"
        assert eventually(lambda least=10 * count: len(written) > least)
    assert eventually(lambda: len(written) > 30)
    stream.close()
    assert join_producer(stream, TIMEOUT)


def test_it_may_not_go_on_after_its_cancellation() -> None:
    waits = threading.Event()

    async def stubborn() -> AsyncIterator[str]:
        yield "one"
        while True:
            waits.set()
            try:
                await asyncio.sleep(TIMEOUT)
            except asyncio.CancelledError:
                yield "no"

    stream = opened(stubborn)
    assert waits.wait(TIMEOUT)
    stream.close()
    assert join_producer(stream, TIMEOUT)
    assert stream.stats.events == 1


def test_an_exit_ends_the_stream_and_not_the_loop() -> None:
    async def exits() -> AsyncIterator[str]:
        yield "one"
        sys.exit()

    async def exits_in_a_task() -> AsyncIterator[str]:
        yield "one"

        async def leave() -> None:
            sys.exit()

        with pytest.raises(SystemExit):
            await asyncio.create_task(leave())
        yield "two"

    stream = opened(exits)
    assert rest_of(stream).startswith(b":ok\ndata: one\n\nevent: error\n")
    assert read(EventStream(from_async(exits_in_a_task))) == b":ok\ndata: one\n\ndata: two\n\n"
    assert read(EventStream(from_async(letters))) == b":ok\ndata: a\n\ndata: b\n\n"


def test_one_that_never_waits_lets_others_run() -> None:
    async def busy() -> AsyncIterator[str]:
        while True:
            yield "x"

    stream = opened(busy)
    done = threading.Event()
    reader = threading.Thread(target=lambda: [None for _ in stream if done.is_set() and stream.cancel()])
    reader.start()
    assert read(EventStream(from_async(letters))) == b":ok\ndata: a\n\ndata: b\n\n"
    done.set()
    reader.join(TIMEOUT)
    stream.close()
    assert join_producer(stream, TIMEOUT)


def test_it_counts_for_a_limit_that_is_set_and_not_for_that_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "_automatic", 0)
    waiting, settings = Waiting(), Settings(max_producers=1)
    first = opened(waiting, settings=settings)
    assert waiting.waits.wait(TIMEOUT)
    snapshot = streams.snapshot()["producers"]
    assert (snapshot["running"], snapshot["asynchronous"]) == (1, 1)
    assert EventStream(from_async(letters), settings=settings).open({}) == "503 Service Unavailable"
    second = opened(letters)
    assert (
        EventStream.from_writer(lambda writer: None)
        .open({})
        .startswith("200" if producers._limit(Settings()) is None else "503")
    )
    for stream in (first, second):
        stream.close()
        assert join_producer(stream, TIMEOUT)
    assert streams.snapshot()["producers"]["running"] == 0


def test_the_test_clients_wait_for_its_first_event() -> None:
    async def slow() -> AsyncIterator[str]:
        await asyncio.sleep(0.3)
        raise LookupError
        yield "never"

    with pytest.raises(LookupError):
        EventStream(from_async(slow), threaded=False).open({})


def test_while_it_runs_there_is_no_running_loop_on_other_threads() -> None:
    """Where threads are greenlets too, all of which are on one."""
    waiting = Waiting()
    stream = opened(waiting)
    assert waiting.waits.wait(TIMEOUT)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()

    async def collect() -> list[Any]:
        return [each async for each in letters()]

    assert asyncio.run(collect()) == ["a", "b"]
    stream.close()
    assert join_producer(stream, TIMEOUT)


@pytest.fixture(autouse=True)
def _all_end() -> Iterator[None]:
    yield
    assert eventually(lambda: producers.describe()["running"] == 0)
