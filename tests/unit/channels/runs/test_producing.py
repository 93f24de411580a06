"""What produces a run: relays, and the thread's surroundings."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import requests

from ssesync import Broker, Relay, RunRefused, RunState, Settings, Writer, from_async
from ssesync.testing import FakeSSEServer

from .conftest import final_of, transcript

WAIT = 30


@pytest.fixture
def upstream() -> Iterator[FakeSSEServer]:
    with FakeSSEServer() as server:
        yield server


@pytest.fixture(params=["the relay", "a function that makes it"])
def producer_of(request: pytest.FixtureRequest) -> Callable[[FakeSSEServer], object]:
    def relay(server: FakeSSEServer) -> Relay:
        return Relay(requests.get(server.url, stream=True, timeout=WAIT))

    def make(server: FakeSSEServer) -> object:
        return relay(server) if request.param == "the relay" else lambda: relay(server)

    return make


def test_an_upstream_is_passed_on_event_by_event_without_its_ids(
    memory: Broker, upstream: FakeSSEServer, producer_of: Callable[[FakeSSEServer], object]
) -> None:
    upstream.answer().event("a", type="x", id=7).raw(": comment\n").event("b\nc").event("d")
    run = memory.start_run("a", producer_of(upstream))
    assert run.wait(WAIT)
    assert transcript(memory, "a") == [
        ("x", "a"), ("message", "b\nc"), ("message", "d"), ("end", {"state": "done", "events": 3}),
    ]  # fmt: skip


def test_an_upstream_that_refuses_fails_the_run(
    memory: Broker, upstream: FakeSSEServer, producer_of: Callable[[FakeSSEServer], object]
) -> None:
    upstream.answer(404)
    run = memory.start_run("a", producer_of(upstream))
    assert run.wait(WAIT)
    assert (run.state, final_of(memory, "a")["reason"]) == (RunState.FAILED, "error")


def test_a_stop_ends_the_read_of_an_upstream(
    memory: Broker, upstream: FakeSSEServer, producer_of: Callable[[FakeSSEServer], object]
) -> None:
    upstream.answer().event("a").stall()
    run = memory.start_run("a", producer_of(upstream))
    followed = run.follow()
    assert followed.get(WAIT) is not None
    assert run.stop()
    named = [each for each in threading.enumerate() if each.name == "ssesync-run-a"]
    for thread in named:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_the_producer_runs_in_its_scope_and_without_the_context_of_its_start(memory: Broker) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("of the request")
    steps: list[str] = []

    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        steps.append("begin")
        yield
        steps.append("end")

    def produce(writer: Writer) -> None:
        steps.append(variable.get())
        writer.write("x")

    options = {"scope": scope, "after_step": lambda: steps.append("step")}
    assert memory.start_run("a", produce, writer=True, **options).wait(WAIT)
    for thread in [each for each in threading.enumerate() if each.name == "ssesync-run-a"]:
        thread.join(WAIT)
    assert steps == ["begin", "none", "step", "end"]


async def letters() -> AsyncIterator[str]:
    for letter in "ab":
        await asyncio.sleep(0)
        yield letter


@pytest.mark.parametrize(
    "producer", [lambda: from_async(letters), lambda: from_async(letters()), lambda: lambda: from_async(letters())],
    ids=["a function", "a generator", "a function that makes it"],
)  # fmt: skip
def test_an_asynchronous_producer(memory: Broker, producer: Callable[[], Any]) -> None:
    assert memory.start_run("a", producer()).wait(WAIT)
    assert transcript(memory, "a") == [("message", "a"), ("message", "b"), ("end", {"state": "done", "events": 2})]


def test_a_stop_cancels_an_asynchronous_producer(memory: Broker) -> None:
    waits, closed = threading.Event(), threading.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            for number in range(200):  # more than may wait for the thread
                yield str(number)
            waits.set()
            await asyncio.sleep(WAIT)
        finally:
            await asyncio.sleep(0.01)
            closed.set()

    run = memory.start_run("a", from_async(endless))
    assert waits.wait(WAIT)
    assert run.stop()
    assert closed.wait(WAIT)
    assert run.wait(WAIT)
    assert (run.state, final_of(memory, "a")["state"]) == (RunState.STOPPED, "stopped")


def test_an_asynchronous_producer_does_not_go_on_after_its_cancellation(memory: Broker) -> None:
    waits, given = threading.Event(), []

    async def stubborn() -> AsyncIterator[str]:
        with contextlib.suppress(asyncio.CancelledError):
            waits.set()
            await asyncio.sleep(WAIT)
        for number in range(200):  # more than may wait for the thread
            given.append(number)
            yield str(number)

    run = memory.start_run("a", from_async(stubborn))
    assert waits.wait(WAIT)
    assert run.stop()
    for thread in [each for each in threading.enumerate() if each.name == "ssesync-run-a"]:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert given == [0]


def test_an_asynchronous_producer_that_fails_fails_its_run(memory: Broker) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise LookupError

    run = memory.start_run("a", from_async(failing))
    assert run.wait(WAIT)
    assert run.state is RunState.FAILED


def test_an_event_that_can_not_be_written_closes_an_asynchronous_producer(memory: Broker) -> None:
    closed = threading.Event()

    async def wrong() -> AsyncIterator[Any]:
        try:
            yield object()
            await asyncio.sleep(WAIT)
        finally:
            closed.set()

    run = memory.start_run("a", from_async(wrong))
    assert run.wait(WAIT)
    assert run.state is RunState.FAILED
    assert closed.wait(WAIT)


def test_a_coroutine_of_a_run_that_is_refused_is_closed(memory: Broker, recwarn: pytest.WarningsRecorder) -> None:
    async def later() -> AsyncIterator[str]:
        return letters()

    held = threading.Event()
    options: dict[str, Any] = {"settings": Settings(max_producers=1)}
    first = memory.start_run("a", lambda: iter(held.wait, True), **options)
    with pytest.raises(RunRefused):
        memory.start_run("b", from_async(later()), **options)
    held.set()
    assert first.wait(WAIT)
    assert not recwarn.list
