"""Users' code is called under no lock, and where it hangs it takes nothing of the process with it."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssesync import CancelToken, CloseReason, EventStream, Settings, StreamStats, Writer, executor, streams
from ssesync.executor import Executor, callers
from ssesync.reactor import reactor
from ssesync.server import closing
from ssesync.server.liveness import Liveness
from ssesync.server.mailbox import Mailbox
from ssesync.server.source import END

from ..core.test_reactor import make_tcp, pass_through
from .test_stream import environ

TIMEOUT = 90


def within(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = make_tcp()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def own_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads for this test alone, which may hang."""
    monkeypatch.setattr(executor, "_callers", [Executor(2, "test-caller")])


def ticks(count: int = 2) -> bool:
    """Whether the reactor keeps time."""
    seen: list[None] = []
    reactor().every_tick(lambda: seen.append(None) or len(seen) < count)
    return within(lambda: len(seen) >= count)


class Cut:
    """A stream as a guard knows it, which closes itself when it is cut off."""

    reason: CloseReason | None = None

    def __init__(self) -> None:
        self.guard: Liveness | None = None

    def cancel(self, reason: CloseReason) -> None:
        self.reason = reason
        assert self.guard is not None
        self.guard.end()


def test_a_callback_that_closes_the_stream_of_a_client_that_stalls_does_not_hang(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = Cut()
    guard = stream.guard = Liveness(stream, {"gunicorn.socket": pair[0]}, Settings(send_timeout=0.01))  # type: ignore[arg-type]
    guard.sending(time.monotonic())
    thread = threading.Thread(target=guard.tick, args=(time.monotonic() + 1,), daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert stream.reason is CloseReason.STALLED


def stalled(pair: tuple[socket.socket, socket.socket], callback: Callable[[EventStream], object]) -> EventStream:
    """A stream whose server is stuck in send(), as the reactor sees it, with a callback for its end."""
    stream = EventStream(Writer(), send_timeout=0.01, detach=False)
    stream.open(environ(**{"gunicorn.socket": pair[0]}))
    stream.cancelled.add_callback(lambda: callback(stream))
    next(stream)
    return stream


@pytest.mark.slow
def test_it_does_so_in_a_whole_stream_too(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = stalled(pair, EventStream.close)
    assert within(lambda: stream.closed)
    assert stream.reason is CloseReason.STALLED
    assert ticks()


@pytest.mark.slow
def test_callbacks_that_never_return_stop_neither_the_reactor_nor_other_streams(
    pair: tuple[socket.socket, socket.socket], own_callers: None
) -> None:
    release = threading.Event()
    begun = threading.Semaphore(0)

    def hang(_: EventStream) -> None:
        begun.release()
        release.wait(TIMEOUT)

    others = make_tcp(), make_tcp()
    with others[0][0], others[0][1], others[1][0], others[1][1]:
        hanging = [stalled(each, hang) for each in (pair, others[0])]
        assert begun.acquire(timeout=TIMEOUT)
        assert begun.acquire(timeout=TIMEOUT)
        # Both helpers are kept. Lifetimes, stalls, and clients that leave are seen all the same.
        leaving = EventStream(Writer())
        leaving.open(environ(**{"gunicorn.socket": others[1][0]}))
        next(leaving)
        reader_like = threading.Event()
        leaving.cancelled._add(reader_like.set, own=True)
        others[1][1].close()
        assert within(lambda: leaving.reason is CloseReason.CLIENT_GONE)
        assert reader_like.wait(TIMEOUT)  # what is the library's own is called at once: a relay's upstream is shut
        aged = EventStream(Writer(), max_lifetime=0.01)
        aged.open(environ())
        assert within(lambda: aged.reason is CloseReason.LIFETIME)
        assert ticks()
        release.set()
        for stream in (*hanging, leaving, aged):
            stream.close()


@pytest.mark.slow
def test_callbacks_of_what_the_process_itself_ends_are_called_on_helpers(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    names: list[str] = []
    stream = stalled(pair, lambda _: names.append(threading.current_thread().name))
    assert within(lambda: names)
    assert names[0].startswith("ssesync-caller")
    stream.close()


@pytest.mark.slow
def test_a_handler_of_the_log_that_hangs_does_not_stop_the_reactor(own_callers: None) -> None:
    release, begun = threading.Event(), threading.Event()

    class Hanging(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            begun.set()
            release.wait(TIMEOUT)

    def fail() -> None:
        raise LookupError("in a callback of the reactor")

    handler, logger = Hanging(), logging.getLogger("ssesync")
    logger.addHandler(handler)
    try:
        reactor().call_from_signal(fail)
        assert begun.wait(TIMEOUT)
        assert ticks()
    finally:
        release.set()
        logger.removeHandler(handler)


def test_a_destructor_only_requests_the_end() -> None:
    """Garbage is collected in the middle of anything. It was on_close and a log line, under whichever lock."""
    closes: list[tuple[str, CloseReason]] = []

    def on_close(reason: CloseReason, stats: StreamStats) -> None:
        closes.append((threading.current_thread().name, reason))

    stream = EventStream(Writer(), on_close=on_close)
    stream.open(environ())
    del stream
    gc.collect()
    pass_through()
    assert within(lambda: closes)
    assert closes == [(closes[0][0], CloseReason.CANCELLED)]
    assert closes[0][0].startswith("ssesync-caller")


@pytest.mark.slow
def test_a_stream_that_is_opened_and_never_iterated_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(closing, "_ABANDONED", 0)
    ended = threading.Event()

    def produce(writer: Writer) -> None:
        writer.cancelled.wait(TIMEOUT)
        ended.set()

    kept = EventStream.from_writer(produce, name="/forsaken", first_event_timeout=0)
    kept.open(environ())
    asked_for = EventStream(Writer())
    asked_for.open(environ())
    next(asked_for)
    step_by_step = EventStream(["x"], threaded=False)
    step_by_step.open(environ())
    assert ended.wait(TIMEOUT)
    assert within(lambda: kept.closed)
    assert not asked_for.closed
    assert not step_by_step.closed
    assert "/forsaken was opened" in caplog.text
    caplog.clear()
    for stream in (asked_for, step_by_step):
        stream.close()


def test_closing_from_another_thread_leaves_the_end_to_the_servers() -> None:
    names: list[str] = []
    stream = EventStream(Writer(), keep_alive=60, on_close=lambda *_: names.append(threading.current_thread().name))
    stream.open(environ())
    next(stream)
    server = threading.Thread(target=lambda: list(stream), name="the server")
    server.start()
    assert within(lambda: stream._lifecycle.inside)
    stream.close()
    server.join(TIMEOUT)
    assert not server.is_alive()
    assert stream.closed
    assert names == ["the server"]


def test_what_is_cancelled_or_stopped_before_it_is_opened_ends_as_it_opens() -> None:
    for end, reason in ((EventStream.cancel, CloseReason.CANCELLED), (EventStream.stop, CloseReason.SHUTDOWN)):
        stream = EventStream(Writer(), keep_alive=60)
        end(stream)
        assert stream.open(environ()) == "200 OK"
        list(stream)
        stream.close()
        assert stream.reason is reason


def test_a_signal_handler_that_has_interrupted_the_counting_is_counted_after_it() -> None:
    stream = EventStream(Writer(), on_close=lambda *_: owned.append(streams._lock._is_owned()))  # type: ignore[attr-defined]
    owned: list[bool] = []
    stream.open(environ())
    before = streams.snapshot()["closed"].get("cancelled", 0)
    with streams._locked():
        stream.close()
        assert owned == []
    assert owned == [False]
    assert streams.snapshot()["closed"]["cancelled"] == before + 1


def test_what_is_discarded_has_no_size() -> None:
    box = Mailbox()
    box.put(b"abc")
    box.close(CloseReason.DONE, last=b"last")
    assert box.pending == (2, 7)
    box.close(CloseReason.CANCELLED, discard=True)
    assert box.pending == (0, 0)
    assert box.pull(10) is END
    writer = Writer()
    writer.write("hello")
    writer.cancel()
    assert writer.pending == (0, 0)


def test_a_signal_handler_that_writes_to_a_full_mailbox_gets_an_error() -> None:
    box = Mailbox(max_items=1)
    box.put(b"1")
    with box._lock, pytest.raises(RuntimeError, match="signal handler"):
        box.put(b"2")


class Mine(EventStream):
    """A subclass, with options of its own making."""

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source, **{"keep_alive": 7, **options})


@pytest.mark.parametrize("make", [lambda: Mine(lambda: iter("x")), lambda: Mine.from_writer(lambda writer: None)])
def test_a_subclass_used_as_an_application_serves_itself(make: Callable[[], EventStream]) -> None:
    body = make()(environ(), lambda status, headers, info=None: bytes)  # type: ignore[arg-type, return-value]
    assert type(body) is Mine
    assert body.settings.keep_alive == 7
    body.close()


def test_a_token_calls_its_own_callbacks_itself_and_hands_the_others_out() -> None:
    token, handed_out, called = CancelToken(), list[Callable[[], object]](), list[str]()
    token.add_callback(lambda: called.append("theirs"))
    token._add(lambda: called.append("own"), own=True)
    token._set("why", handed_out.append)
    assert called == ["own"]
    for call in handed_out:
        call()
    assert called == ["own", "theirs"]
    assert token.reason == "why"


def test_the_helpers_are_one_set_for_the_process() -> None:
    assert callers() is callers()
