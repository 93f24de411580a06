"""The contract between what makes a stream and what sends it: sources of any make, and how each kind is recognised."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssesync import CloseReason, EventStream, StreamStats, Writer, open_broker
from ssesync.producing import Producing, Target
from ssesync.server.factory import factory_of
from ssesync.server.registry import streams
from ssesync.server.source import END, PENDING, BlockingPull, Pending, Pulled, Refusal, Source
from ssesync.settings import DEFAULTS

from ...cases import each_case
from .test_mailbox import Running
from .test_stream import call, environ


class Scripted(Source):
    """A source that gives what a test has put into it."""

    def __init__(self, *pulls: Pulled, answer: Refusal | None = None) -> None:
        self.pulls = list(pulls)
        self.answer = answer
        self.times: list[float] = []
        self.closed = 0
        self._reason: CloseReason | None = None

    def open(self, wait: float) -> Refusal | None:
        return self.answer

    def pull(self, most: int) -> Pulled:
        self.times.append(time.monotonic())
        if self._reason is not None:
            return END
        return self.pulls.pop(0) if self.pulls else PENDING

    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        self._reason = self._reason or CloseReason(reason)
        if self.on_ready is not None:
            self.on_ready()

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        self.cancel(reason)

    def close(self) -> None:
        self.closed += 1

    @property
    def reason(self) -> CloseReason | None:
        return self._reason

    @property
    def pending(self) -> tuple[int, int]:
        return 0, 0

    @property
    def events(self) -> int:
        return 7

    @property
    def resumable(self) -> bool:
        return True


def test_any_source_is_served_and_closed() -> None:
    source = Scripted(b"data: a\n\n", b"data: b\n\n", END)
    closes: list[tuple[CloseReason, StreamStats]] = []
    status, _, chunks = call(EventStream(source, on_close=lambda *args: closes.append(args)))
    assert status == "200 OK"
    assert chunks == [b":ok\n", b"data: a\n\n", b"data: b\n\n"]
    assert source.closed == 1
    assert [(reason, stats.events) for reason, stats in closes] == [("done", 7)]


def test_a_source_may_open_with_another_answer() -> None:
    before = streams.snapshot()
    source = Scripted(answer=Refusal("418 I'm a Teapot", [("Content-Type", "text/plain")], b"short\n"))
    closes: list[object] = []
    status, headers, chunks = call(EventStream(source, on_close=lambda *args: closes.append(args)))
    assert (status, headers, chunks) == ("418 I'm a Teapot", {"Content-Type": "text/plain"}, [b"short\n"])
    assert source.closed
    assert not closes
    after = streams.snapshot()
    assert after["opened"] - before["opened"] == sum(after["closed"].values()) - sum(before["closed"].values()) == 1


def test_a_pull_waits_for_on_ready_or_until_the_time_is_over() -> None:
    source = Scripted()
    pull = BlockingPull(source)
    assert pull.pull(10, 0) is PENDING
    assert len(source.times) == 1
    assert pull.pull(10, 0.01) is PENDING
    pulling = Running(lambda: pull.pull(10, 30))
    assert pulling.blocked()
    source.pulls.append(b"x")
    assert source.on_ready is not None
    source.on_ready()
    assert pulling.join() == b"x"


def test_a_call_of_on_ready_during_a_pull_is_not_missed() -> None:
    class Late(Scripted):
        def pull(self, most: int) -> Pulled:
            pulled = super().pull(most)
            if pulled is PENDING and self.on_ready is not None:
                self.on_ready()
            return pulled

    assert BlockingPull(Late(PENDING, PENDING, b"x")).pull(10, None) == b"x"


def test_a_source_may_ask_to_be_pulled_again_without_on_ready() -> None:
    source = Scripted(Pending(again=0.05), Pending(again=0.01), b"x")
    assert BlockingPull(source).pull(10, None) == b"x"
    assert source.times[1] - source.times[0] >= 0.05
    assert BlockingPull(Scripted(*[Pending(again=60)] * 2)).pull(10, 0.01) == Pending(again=60)


def test_keep_alives_are_sent_while_a_source_has_nothing() -> None:
    stream = EventStream(Scripted(), keep_alive=0.01)
    stream.open(environ())
    assert [next(stream) for _ in range(3)] == [b":ok\n", b":keep-alive\n", b":keep-alive\n"]
    stream.cancel()
    assert b":keep-alive\n" not in list(stream)
    stream.close()


class Talk(Producing):
    def __init__(self, answer: Refusal | None = None) -> None:
        self.answer = answer
        self.closed = 0

    def produce(self, writer: Target) -> None:
        writer.write("a")
        writer.write_raw(b"data: b\n\n", events=1)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("threaded", [True, False])
def test_what_writes_by_itself_is_run_and_closed(threaded: bool) -> None:
    talk = Talk()
    assert call(EventStream(talk, threaded=threaded))[2][0] == b":ok\n"
    assert talk.closed == 1


def test_what_writes_by_itself_may_have_another_answer_and_is_closed_without_being_run() -> None:
    talk = Talk(Refusal("502 Bad Gateway", [], b"no\n"))
    status, _, chunks = call(EventStream(talk))
    assert (status, chunks, talk.closed) == ("502 Bad Gateway", [b"no\n"], 1)


def generator() -> Iterator[str]:
    yield "x"


@each_case(
    "given, kind, repeatable",
    [
        (["x"], "Items", False),
        (generator(), "Items", False),
        (generator, "ItemsFunction", True),
        (Writer(), "ExistingSource", False),
        (Scripted(), "ExistingSource", False),
        (Talk(), "Upstream", False),
        (Refusal("404 Not Found", []), "NoStream", False),
    ],
)
def test_each_kind_is_recognised(given: Any, kind: str, repeatable: bool) -> None:
    factory = factory_of(given)
    assert (type(factory).__name__, factory.repeatable) == (kind, repeatable)


def test_a_subscription_is_a_source_that_can_be_detached() -> None:
    with open_broker("memory://") as broker, broker.subscribe("a") as subscription:
        factory = factory_of(subscription)
        assert type(factory).__name__ == "ExistingSource"
        assert factory.is_detachable(DEFAULTS)


def test_an_answer_in_place_of_a_stream_has_the_cors_headers_of_the_stream() -> None:
    stream = EventStream.answering("404 Not Found", "no", [("X-A", "1")], cors_origins=["https://a.example"])
    status, headers, chunks = call(stream, HTTP_ORIGIN="https://a.example")
    assert (status, chunks) == ("404 Not Found", [b"no\n"])
    assert headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert headers["X-A"] == "1"


@pytest.mark.parametrize("write", [lambda w: w.write("x" * 700_000), lambda w: w.write_raw(b"y" * 700_000, events=0)])
def test_a_view_that_is_run_inline_may_write_any_number_of_bytes(write: Callable[[Writer], object]) -> None:
    """As the thread that would make room is the one that writes, nothing may wait for room."""

    def produce(writer: Writer) -> None:
        for _ in range(3):
            write(writer)

    assert sum(map(len, call(EventStream.from_writer(produce, threaded=False))[2])) > 2_100_000
