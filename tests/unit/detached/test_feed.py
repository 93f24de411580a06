"""Feeds: streams with a producer of their own that have left their server, over real sockets."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssesync import CloseReason, Event, EventStream, StreamClosed, StreamStats, Writer, streams
from ssesync.detached.feed import Feed
from ssesync.wire.encoder import KEEP_ALIVE, encode_keep_alive

from .small_server import TIMEOUT, SmallServer


@pytest.fixture(autouse=True)
def all_are_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose producers have ended, too."""
    monkeypatch.setattr("ssesync.server.leaving._REST", -1)


class Ended:
    """An ``on_close``."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self.reason: CloseReason | None = None
        self.stats: StreamStats | None = None

    def __call__(self, reason: CloseReason, stats: StreamStats) -> None:
        self.reason, self.stats = reason, stats
        self._called.set()

    def wait(self) -> CloseReason | None:
        assert self._called.wait(TIMEOUT), "the stream did not end"
        return self.reason


def detached(server: SmallServer) -> Feed:
    """The client, once it has left its server."""
    assert server.free.wait(TIMEOUT)
    assert server.stream is not None
    assert isinstance(server.stream._detached, Feed)
    return server.stream._detached


def eventually(check: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


BOTH_FRAMINGS = pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "close-delimited"])


@BOTH_FRAMINGS
def test_a_producer_goes_on_when_the_servers_thread_is_free(chunked: bool) -> None:
    go, ended = threading.Event(), Ended()

    def produce() -> Iterator[str]:
        yield "one"
        assert go.wait(TIMEOUT)
        yield "two"

    server = SmallServer(lambda: EventStream(produce, on_close=ended), chunked=chunked)
    feed = detached(server)
    assert feed.describe()["tier"] == "detached"
    assert feed in streams.all()
    go.set()
    answer = server.read()
    assert b"Connection: close" in answer.head
    assert answer.body == b":ok\ndata: one\n\ndata: two\n\n"
    assert answer.complete
    assert ended.wait() == "done"
    assert ended.stats is not None
    assert (ended.stats.events, ended.stats.bytes, ended.stats.keep_alives) == (2, len(answer.body), 0)
    assert feed.closed
    assert feed not in streams.all()
    assert server.stream is not None
    assert not server.stream.cancelled.is_set()


def test_a_callers_writer_goes_on_when_the_servers_thread_is_free() -> None:
    writer = Writer()
    server = SmallServer(lambda: EventStream(writer))
    detached(server)
    for number in range(300):
        writer.write_event(str(number))
    writer.finish("over")
    answer = server.read()
    assert answer.body == b":ok\n" + b"".join(b"data: %d\n\n" % n for n in range(300)) + b"event: done\ndata: over\n\n"
    assert answer.complete


@pytest.mark.slow
def test_a_producer_keeps_the_pace_of_its_client() -> None:
    made = []

    def produce() -> Iterator[str]:
        for number in range(400):
            made.append(number)
            yield "x" * 10_000

    server = SmallServer(lambda: EventStream(produce, max_pending_events=4, keep_alive=0.1))
    feed = detached(server)
    assert eventually(lambda: feed.unsent is not None and feed.pending[0] == 4)
    so_far = len(made)
    time.sleep(0.7)
    assert len(made) == so_far < 200  # neither events nor keep-alives are added to what waits
    answer = server.read()
    assert answer.body.replace(KEEP_ALIVE, b"") == b":ok\n" + 400 * (b"data: " + b"x" * 10_000 + b"\n\n")
    assert answer.complete


def test_one_write_may_be_larger_than_everything_that_is_sent_at_a_time() -> None:
    server = SmallServer(lambda: EventStream(iter(["a", "y" * 3_000_000, "b"])))
    assert server.read().body == b":ok\ndata: a\n\ndata: " + b"y" * 3_000_000 + b"\n\ndata: b\n\n"


def test_a_client_that_leaves_ends_its_producer() -> None:
    ended, seen = Ended(), []

    def produce(writer: Writer) -> None:
        try:
            writer.write("one")
            assert writer.cancelled.wait(TIMEOUT)
            writer.write("two")
        except StreamClosed as error:
            seen.append(error.reason)
            raise

    server = SmallServer(lambda: EventStream.from_writer(produce, on_close=ended))
    detached(server)
    server.client.close()
    assert ended.wait() == "client_gone"
    assert eventually(lambda: seen == ["client_gone"])


@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut_off() -> None:
    ended = Ended()

    def produce() -> Iterator[str]:
        while True:
            yield "x" * 10_000

    server = SmallServer(lambda: EventStream(produce, on_close=ended, send_timeout=0.3))
    detached(server)
    assert ended.wait() == "stalled"
    assert server.read().reset


@pytest.mark.slow
def test_a_lifetime_ends_a_stream_after_what_waits() -> None:
    ended = Ended()

    def produce(writer: Writer) -> None:
        writer.write_event("one", id=1)
        writer.cancelled.wait(TIMEOUT)

    server = SmallServer(lambda: EventStream.from_writer(produce, on_close=ended, max_lifetime=0.5, retry=7))
    answer = server.read()
    assert ended.wait() == "lifetime"
    start, _, trailer = answer.body.rpartition(b"retry: ")
    assert start == b"retry: 7\nid: 1\ndata: one\n\n"
    assert 7 <= int(trailer) <= 14
    assert answer.complete


@pytest.mark.slow
@pytest.mark.parametrize("event", [None, "ping"])
def test_silence_is_filled_with_keep_alives(event: str | None) -> None:
    go, ended = threading.Event(), Ended()

    def produce(writer: Writer) -> None:
        writer.write("one")
        go.wait(TIMEOUT)

    options = {"keep_alive": 0.2, "keep_alive_event": event}
    server = SmallServer(lambda: EventStream.from_writer(produce, on_close=ended, **options))
    feed = detached(server)
    assert eventually(lambda: feed.stats.keep_alives >= 2)
    go.set()
    answer = server.read()
    ended.wait()
    assert ended.stats is not None
    assert answer.body == b":ok\ndata: one\n\n" + encode_keep_alive(event) * ended.stats.keep_alives
    assert ended.stats.events == 1


@BOTH_FRAMINGS
@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_an_end_from_outside_leaves_the_answer_incomplete(chunked: bool, how: str) -> None:
    ended = Ended()

    def produce(writer: Writer) -> None:
        writer.write("one")
        writer.cancelled.wait(TIMEOUT)

    server = SmallServer(
        lambda: EventStream.from_writer(produce, on_close=ended, error_event=Event("cut")), chunked=chunked
    )
    feed = detached(server)
    assert eventually(lambda: feed.stats.bytes == len(b":ok\ndata: one\n\n"))
    assert server.stream is not None
    getattr(server.stream, how)("cancelled")
    answer = server.read()
    assert answer.body == b":ok\ndata: one\n\ndata: cut\n\n"
    assert not answer.complete
    assert ended.wait() == "cancelled"


def many_events(writer: Writer) -> None:
    for _ in range(50):
        writer.write("x" * 10_000)


@BOTH_FRAMINGS
def test_a_cancel_after_the_producers_end_leaves_the_answer_incomplete(chunked: bool) -> None:
    ended = Ended()
    server = SmallServer(lambda: EventStream.from_writer(many_events, on_close=ended), chunked=chunked)
    feed = detached(server)
    assert eventually(lambda: feed.reason is not None and feed.unsent is not None)
    assert feed.reason == "done"
    assert server.stream is not None
    server.stream.cancel()
    answer = server.read()
    assert len(answer.body) < 500_000
    assert not answer.complete
    assert ended.wait() == "cancelled"


def test_what_the_client_has_not_taken_is_dropped_as_well() -> None:
    """All was pulled, and the kernel has a part of it."""
    ended = Ended()
    server = SmallServer(lambda: EventStream(iter(["x" * 1_000_000]), on_close=ended))
    feed = detached(server)
    assert eventually(lambda: feed.pending == (0, 0) and feed.unsent is not None)
    assert server.stream is not None
    server.stream.cancel("revoked")
    assert not server.read().complete
    assert ended.wait() == feed.reason == "revoked"


def test_a_cancel_of_the_writer_comes_after_what_was_pulled() -> None:
    writer, ended = Writer(), Ended()
    many_events(writer)
    writer.close()
    server = SmallServer(lambda: EventStream(writer, on_close=ended))
    feed = detached(server)
    assert eventually(lambda: feed.unsent is not None)
    writer.cancel()
    answer = server.read()
    assert b"event: error\n" in answer.body
    assert not answer.complete
    assert ended.wait() == "cancelled"


def test_an_exception_of_a_producer_is_reported_by_the_applications_function() -> None:
    def produce() -> Iterator[str]:
        yield "one"
        raise LookupError("secret")

    def tell(error: BaseException) -> Event:
        return Event(f"{type(error).__name__} on {threading.current_thread().name[:14]}")

    server = SmallServer(lambda: EventStream(produce, error_event=tell))
    answer = server.read()
    assert answer.body == b":ok\ndata: one\n\ndata: LookupError on ssesync-caller\n\n"
    assert not answer.complete


def test_a_stream_that_is_dropped_by_all_goes_on() -> None:
    """Nothing but the client's connection and the producer need it."""
    writer = Writer()
    server = SmallServer(lambda: EventStream(writer))
    detached(server)
    server.stream = None
    writer.write("one")
    writer.close()
    assert server.read().body == b":ok\ndata: one\n\n"


def test_nothing_is_kept_of_a_stream_that_has_ended() -> None:
    """No cycle, either: a process with many answers would collect garbage all the time."""
    writer, ended = Writer(), Ended()
    server = SmallServer(lambda: EventStream(writer, on_close=ended))
    feed = detached(server)
    writer.close()
    server.read()
    assert ended.wait() == "done"
    reference = weakref.ref(server.stream)
    gc.disable()
    try:
        server.stream = None
        assert eventually(lambda: reference() is None)
    finally:
        gc.enable()
    assert feed._source.on_ready is None
