"""A reader that waits for a silent server is ended from another thread: at once, quietly, by every way there is.

The servers here stay silent for as long as the test lasts, so whatever ends a wait is the cancel.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from ssesync import CancelToken, Event, EventStream, Reader, StatusError
from ssesync.client.body import Body
from ssesync.testing import CHUNKED, HOLD, FakeSSEServer, RecordedRequest, chunk, head

from .background import Background, Reading
from .raw_server import FRAMINGS, TIMEOUT, Steps

EVENT = Event("x", type="message")


def silent_after_one(framing: str) -> Callable[[RecordedRequest], Steps]:
    """One event of a body that promises more, then silence."""
    start, sent, _ = FRAMINGS[framing]([b"data: x\n\n", b"data: never\n\n"])

    def script(_: RecordedRequest) -> Steps:
        yield start
        yield from sent[0]
        yield HOLD

    return script


SILENT = silent_after_one("one chunk each")


@pytest.mark.parametrize("end", ["cancel", "close"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_blocked_reader_ends_at_once_and_quietly(
    framing: str, end: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(silent_after_one(framing))
    reader = Reader(get(server), until="[DONE]", until_required=True)
    reading = Reading(reader).wait_for_next(1)
    getattr(reader, end)()
    assert reading.result() == [EVENT]
    assert reader.cancelled
    assert reader.read() is None
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.parametrize("end", ["cancel", "close"])
@pytest.mark.parametrize("framing", ["one chunk each", "gzip, chunked"])
def test_a_blocked_reader_ends_at_once_without_the_fast_path(
    framing: str,
    end: str,
    serve_both: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
    without_fast_path: Callable[[requests.Response], requests.Response],
) -> None:
    server = serve_both(silent_after_one(framing))
    reader = Reader(without_fast_path(get(server)))
    reading = Reading(reader).wait_for_next(1)
    getattr(reader, end)()
    assert reading.result() == [EVENT]
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_closing_the_response_from_another_thread_ends_a_blocked_reader_quietly(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(silent_after_one(framing))
    response = get(server)
    reading = Reading(Reader(response)).wait_for_next(1)
    Background(response.close).result()
    assert reading.result() == [EVENT]
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_closing_the_response_is_enough_to_end_the_connection(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(SILENT)
    with get(server) as response:
        reader = Reader(response)
        assert reader.read() == EVENT
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert reader.read() is None


def test_a_blocked_read_returns_none(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve_both(SILENT)))
    assert reader.read() == EVENT
    reading = Background(reader.read).wait_until_it_reads()
    reader.cancel()
    assert reading.result() is None


def test_a_blocked_body_returns_no_bytes(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    body = Body(get(serve_both(SILENT)))
    assert body.read() == b"data: x\n\n"
    reading = Background(body.read).wait_until_it_reads()
    body.cancel()
    assert reading.result() == b""
    assert body.cancelled


def test_a_reader_that_waits_in_the_middle_of_an_event_ends_without_it(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both([head(CHUNKED), chunk(b"data: x\n\ndata: half\n"), HOLD])
    reader = Reader(get(server))
    reading = Reading(reader).wait_for_next(1)
    reader.cancel()
    assert reading.result() == [EVENT]


@pytest.mark.slow
def test_one_token_ends_fifty_readers(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(SILENT)
    token = CancelToken()
    readers = [Reader(get(server), cancel=token) for _ in range(50)]
    readings = [Reading(reader) for reader in readers]
    for reading in readings:
        reading.wait_for_next(1)
    token.set()
    for reading in readings:
        assert reading.result() == [EVENT]
    assert all(reader.cancelled for reader in readers)


def test_many_threads_may_cancel_and_close_at_once(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve(SILENT)
    for _ in range(20):
        reader = Reader(get(server))
        reading = Reading(reader)
        start = threading.Barrier(5)

        def end(method: Callable[[], None], start: threading.Barrier = start) -> None:
            start.wait(TIMEOUT)
            method()

        ending = [Background(lambda method=method: end(method)) for method in [reader.cancel, reader.close] * 2]  # type: ignore[misc]
        reading.wait_for_next(1)
        start.wait(TIMEOUT)
        assert reading.result() == [EVENT]
        for one in ending:
            one.result()


def test_a_cancel_at_any_moment_of_a_busy_stream_ends_it_quietly(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    def script(_: RecordedRequest) -> Steps:
        yield head(CHUNKED)
        yield from [chunk(b"data: x\n\n") * 20] * 3
        # Larger pieces: under gevent the server writes until all buffers are full before the client has its turn.
        while True:
            yield chunk(b"data: x\n\n") * 1000

    server = serve_both(script)
    for count in (0, 1, 19, 20, 21, 5000):
        reader = Reader(get(server))
        reached = threading.Event()

        def read(reader: Reader = reader, count: int = count, reached: threading.Event = reached) -> set[str | None]:
            seen = set()
            for number, event in enumerate(reader):
                seen.add(event.data)
                if number == count:
                    reached.set()
                    time.sleep(0)  # under gevent the others have no turn while there is more to read: 55 s
            return seen

        reading = Background(read)
        assert reached.wait(TIMEOUT)
        reader.cancel()
        assert reading.result() == {"x"}
        assert reader.cancelled


def test_events_that_are_buffered_are_not_given_after_a_cancel(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head(CHUNKED), chunk(b"data: x\n\n" * 10), HOLD])))
    events = iter(reader)
    assert next(events) == EVENT
    reader.cancel()
    assert list(events) == []
    assert reader.read() is None


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_a_reader_that_was_ended_before_its_first_read_gives_nothing(
    end: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(SILENT)
    reader = Reader(get(server), until="[DONE]", until_required=True)
    getattr(reader, end)()
    assert reader.read() is None
    assert list(reader) == []
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_ending_twice_does_nothing_more(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve(SILENT)))
    for _ in range(3):
        reader.cancel()
        reader.close()
    assert reader.cancelled


def test_a_stream_that_came_to_its_end_was_not_cancelled(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head("Content-Length: 9"), b"data: x\n\n"])))
    assert list(reader) == [EVENT]
    reader.cancel()
    reader.close()
    assert not reader.cancelled


def make_token() -> tuple[Any, Callable[[], object]]:
    token = CancelToken()
    return token, token.set


def make_event() -> tuple[Any, Callable[[], object]]:
    event = threading.Event()
    return event, event.set


def make_stream() -> tuple[Any, Callable[[], object]]:
    stream = EventStream(iter([]))
    return stream, stream.cancel


SIGNALS = {"CancelToken": make_token, "threading.Event": make_event, "EventStream": make_stream}


@pytest.mark.parametrize("kind", SIGNALS)
def test_what_is_given_as_cancel_ends_a_blocked_reader(
    kind: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    signal, give = SIGNALS[kind]()
    reader = Reader(get(serve_both(SILENT)), cancel=signal)
    reading = Reading(reader).wait_for_next(1)
    give()
    assert reading.result() == [EVENT]
    assert reader.cancelled


@pytest.mark.parametrize("kind", SIGNALS)
def test_for_each_ends_on_its_own_cancel(
    kind: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    signal, give = SIGNALS[kind]()
    reader = Reader(get(serve_both(SILENT)))
    seen: list[Event] = []
    reading = Background(lambda: reader.for_each(seen.append, cancel=signal)).wait_until_it_reads(lambda: seen)
    give()
    reading.result()
    assert seen == [EVENT]
    assert reader.cancelled


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_that_was_given_before_ends_the_reader_before_its_first_read(
    kind: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    signal, give = SIGNALS[kind]()
    give()
    server = serve(SILENT)
    assert list(Reader(get(server), cancel=signal)) == []
    seen: list[Event] = []
    Reader(get(server)).for_each(seen.append, cancel=signal)
    assert seen == []


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_after_the_end_does_nothing(
    kind: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    signal, give = SIGNALS[kind]()
    server = serve([head("Content-Length: 9"), b"data: x\n\n"])
    reader = Reader(get(server), cancel=signal)
    reader.for_each(lambda _: None, cancel=signal)
    give()
    assert not reader.cancelled
    assert len(list(Reader(get(server)))) == 1
    assert server.connections == 1


def test_for_each_ends_when_its_function_cancels(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head(CHUNKED), chunk(b"data: x\n\n" * 10), HOLD])))
    seen: list[Event] = []

    def fn(event: Event) -> None:
        seen.append(event)
        reader.cancel()

    reader.for_each(fn)
    assert seen == [EVENT]


def test_a_token_forgets_readers_that_are_done(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    token = CancelToken()
    server = serve([head("Content-Length: 9"), b"data: x\n\n"])
    for _ in range(3):
        Reader(get(server), cancel=token).for_each(lambda _: None, cancel=token)
    assert not token._callbacks


def test_the_thread_that_watches_a_foreign_event_ends_with_the_reader(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head("Content-Length: 9"), b"data: x\n\n"])
    list(Reader(get(server), cancel=threading.Event()))
    for thread in threading.enumerate():
        if thread.name == "ssesync-cancel":
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [1, "stop", object(), lambda: None, threading.Lock()])
def test_a_cancel_of_a_wrong_type_is_refused_and_leaves_nothing_open(
    wrong: object, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve(SILENT)
    response = get(server)
    with pytest.raises(TypeError, match=f"CancelToken.*{type(wrong).__name__}"):
        Reader(response, cancel=wrong)
    gc.collect()  # an unclosed socket would warn here
    assert Reader(response).read() == EVENT


def test_for_each_refuses_a_cancel_of_a_wrong_type(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve(SILENT)))
    with pytest.raises(TypeError, match="int"):
        reader.for_each(print, cancel=1)
    assert reader.read() == EVENT
    reader.close()


def test_a_cancel_ends_the_wait_for_the_body_of_a_refused_answer(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssesync.client.reader._EXCERPT_SECONDS", TIMEOUT * 2)
    server = serve_both([head(CHUNKED, status="500 Broken"), chunk(b"too bad"), HOLD])
    token = CancelToken()
    response = get(server)
    reading = Background(lambda: Reader(response, cancel=token)).wait_until_it_reads()
    token.set()
    with pytest.raises(StatusError) as caught:
        reading.result()
    assert caught.value.response is response


def test_cancelling_an_iterable_takes_effect_at_its_next_piece() -> None:
    calls = 0
    closed = False

    def pieces() -> Any:
        nonlocal calls, closed
        try:
            while True:
                calls += 1
                yield b"data: x\n\n"
        finally:
            closed = True

    reader = Reader(pieces())
    assert [reader.read() for _ in range(3)] == [EVENT] * 3
    reader.cancel()
    assert reader.read() is None
    assert (calls, closed) == (3, True)
