"""Which streams a process holds, and what is said of them."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import ssesync
from ssesync import CloseReason, Event, EventStream, Writer
from ssesync.prometheus import StreamsCollector
from ssesync.server import wsgi_server
from ssesync.server.registry import Streams, streams

from .test_stream import environ

SECRET = "the password is swordfish"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    """Counters at zero. What other tests have opened and dropped is not ours to count."""
    gc.collect()
    fresh = Streams()
    monkeypatch.setattr("ssesync.server.stream.streams", fresh)
    monkeypatch.setattr("ssesync.server.closing.streams", fresh)
    monkeypatch.setattr("ssesync.server.refusing.streams", fresh)
    yield fresh
    fresh.stopping = False
    for stream in fresh.all():
        stream.close()


def served(source: Any = None, **options: Any) -> EventStream:
    """A stream as a server holds it."""
    stream = EventStream(Writer() if source is None else source, **options)
    assert stream.open(environ(REMOTE_ADDR="192.0.2.1")) == "200 OK"
    return stream


def status(**options: Any) -> str:
    stream = EventStream(Writer(), **options)
    try:
        return stream.open(environ(REMOTE_ADDR="192.0.2.1"))
    finally:
        stream.close()


def test_up_to_the_limit_streams_are_admitted_and_beyond_it_refused(afresh: Streams) -> None:
    first, second = served(max_streams=2), served(max_streams=2)
    assert status(max_streams=2) == "503 Service Unavailable"
    first.close()
    third = served(max_streams=2)
    assert afresh.snapshot()["refused"] == 1
    second.close()
    third.close()


def test_a_refusal_has_a_retry_after_by_chance_a_text_and_no_producer() -> None:
    started = []
    kept = served()
    waits = set()
    for _ in range(50):
        stream = EventStream(lambda: started.append(1) or [], max_streams=1)  # type: ignore[func-returns-value]
        assert stream.open(environ()) == "503 Service Unavailable"
        headers = dict(stream.headers)
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        waits.add(int(headers["Retry-After"]))
        assert list(stream) == [b"too many event streams\n"]
        stream.close()
    assert not started
    assert waits <= set(range(2, 11))
    assert len(waits) > 3
    kept.close()


def test_a_refused_stream_closes_the_generator_that_it_was_given() -> None:
    closed = []

    def generate() -> Iterator[str]:
        try:
            yield "x"
        finally:
            closed.append(1)

    kept = served()
    items = generate()
    next(items)
    stream = EventStream(items, max_streams=1)
    stream.open(environ())
    stream.close()
    assert closed
    kept.close()


def test_no_on_close_for_a_stream_that_never_was() -> None:
    calls: list[Any] = []
    kept = served()
    stream = EventStream(Writer(), max_streams=1, on_close=lambda *given: calls.append(given))
    stream.open(environ())
    stream.close()
    assert calls == []
    kept.close()


def test_head_204_and_refusals_count_as_no_streams(afresh: Streams) -> None:
    EventStream(["x"]).open(environ(REQUEST_METHOD="HEAD"))
    EventStream(["x"], finished=lambda last: True).open(environ())
    assert afresh.snapshot()["opened"] == 0


def test_the_key_is_what_is_given_a_function_of_the_environ_or_the_address() -> None:
    limit: dict[str, Any] = {"max_streams_per_key": 1}
    kept = [served(**limit), served(key="ada", **limit), served(key=lambda environ: environ["PATH_INFO"], **limit)]
    assert status(**limit) == "503 Service Unavailable"
    assert status(key="ada", **limit) == "503 Service Unavailable"
    assert status(key="/", **limit) == "503 Service Unavailable"
    assert status(key="grace", **limit) == "200 OK"
    for stream in kept:
        stream.close()
    assert status(**limit) == "200 OK"


def test_a_producer_that_fails_before_the_answer_leaves_no_open_stream(afresh: Streams) -> None:
    def fail() -> Iterator[str]:
        raise LookupError
        yield "never"

    with pytest.raises(LookupError):
        EventStream(fail, first_event_timeout=10).open(environ())
    snapshot = afresh.snapshot()
    assert (snapshot["opened"], snapshot["closed"], snapshot["streams"]) == (1, {"error": 1}, [])


def test_a_stream_that_is_dropped_without_being_served_is_counted_out(afresh: Streams) -> None:
    stream = served()
    del stream
    gc.collect()
    deadline = time.monotonic() + 90
    while not (snapshot := afresh.snapshot())["closed"] and time.monotonic() < deadline:
        time.sleep(0.005)  # a destructor may run in the middle of anything, so another thread ends the stream
    assert (snapshot["closed"], snapshot["streams"]) == ({"cancelled": 1}, [])


def test_while_the_process_stops_nothing_is_admitted(afresh: Streams) -> None:
    afresh.stopping = True
    stream = EventStream(Writer(), retry=5000)
    # Not 503, after which a browser would not come back.
    assert stream.open(environ(HTTP_ACCEPT="text/event-stream")) == "200 OK"
    assert ("Content-Type", "text/event-stream; charset=utf-8") in stream.headers
    (body,) = list(stream)
    assert 5000 <= int(re.fullmatch(rb"retry: (\d+)\n", body)[1]) <= 10000  # type: ignore[index]
    assert afresh.snapshot()["opened"] == 0


def test_many_threads_never_pass_the_limit(afresh: Streams) -> None:
    barrier = threading.Barrier(8)
    kept: list[EventStream] = []
    most = []

    def work() -> None:
        barrier.wait()
        for _ in range(50):
            stream = EventStream(Writer(), max_streams=3)
            if stream.open(environ()).startswith("200"):
                kept.append(stream)
                most.append(len(afresh.all()))
            stream.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = afresh.snapshot()
    assert max(most) <= 3
    assert snapshot["opened"] == len(kept) == sum(snapshot["closed"].values())
    assert snapshot["opened"] + snapshot["refused"] == 400


# limits and advice that depend on the server


class Worker:
    """A gunicorn worker, as far as it is looked at: the one whose method handles SIGTERM."""

    alive = True

    def __init__(self, threads: int = 4, timeout: int = 30) -> None:
        self.cfg = SimpleNamespace(threads=threads, timeout=timeout)

    def handle_exit(self, signum: int, frame: object) -> None: ...


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    before = signal.getsignal(signal.SIGTERM)

    def become(kind: str, **options: int) -> Worker:
        made: Worker = type("Worker", (Worker,), {"__module__": f"gunicorn.workers.{kind}"})(**options)
        signal.signal(signal.SIGTERM, made.handle_exit)
        return made

    import gunicorn  # noqa: F401  # a process without it looks no further

    yield become
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("kind", "threads", "limit"), [("gthread", 4, 3), ("gthread", 1, 1), ("sync", 1, None)])
def test_the_automatic_limit_leaves_one_of_gunicorns_threads_free(
    worker: Callable[..., Worker], kind: str, threads: int, limit: int | None
) -> None:
    worker(kind, threads=threads)
    assert wsgi_server.thread_limit() == limit


def test_outside_of_gunicorn_there_is_no_automatic_limit() -> None:
    assert wsgi_server.thread_limit() is None
    assert wsgi_server.gunicorn_worker() is None


def test_the_worker_is_found_through_this_librarys_signal_handler(worker: Callable[..., Worker]) -> None:
    made = worker("gthread")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT)}
    on_tick = streams.on_tick
    try:
        ssesync.drain_on_signal()
        assert wsgi_server.gunicorn_worker() is made
    finally:
        streams.on_tick = on_tick
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("kind", "options", "advice"),
    [
        ("sync", {"timeout": 77}, "(77 s); run it with threads: gunicorn -k gthread --threads 32"),
        ("gthread", {"threads": 1}, "use gunicorn -k gthread --threads 32"),
    ],
)
def test_a_worker_that_can_not_serve_streams_well_is_warned_of_once(
    worker: Callable[..., Worker],
    afresh: Streams,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    options: dict[str, int],
    advice: str,
) -> None:
    worker(kind, **options)
    for _ in range(3):
        afresh.warn_once({})
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert advice in record.getMessage()


def test_a_worker_that_can_is_not(
    worker: Callable[..., Worker], afresh: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    worker("gthread", threads=8)
    afresh.warn_once({})
    worker("ggevent")
    afresh.warn_once({})
    afresh.warn_once({"werkzeug.socket": object(), "wsgi.multithread": True})
    assert not caplog.records


# seeing it


def test_a_snapshot_describes_each_stream_without_its_data(afresh: Streams) -> None:
    writer = Writer()
    stream = served(writer, name="/rooms")
    writer.write(Event(SECRET, type=SECRET, id=SECRET))
    snapshot = afresh.snapshot()
    [entry] = snapshot["streams"]
    assert entry.pop("age") >= 0
    size = len(SECRET) * 3 + len("event: \ndata: \nid: \n\n")
    assert entry == {
        "id": id(stream), "name": "/rooms", "events": 1, "bytes": 0, "pending_events": 1, "pending_bytes": size,
        "last_write": None, "tier": "served", "senses_disconnect": False,
    }  # fmt: skip
    next(stream)
    next(stream)
    [entry] = afresh.snapshot()["streams"]
    assert entry["bytes"] == size + len(b":ok\n")
    assert entry["pending_events"] == entry["pending_bytes"] == 0
    assert 0 <= entry["last_write"] <= entry["age"]
    assert SECRET not in json.dumps(afresh.snapshot())
    assert snapshot["pid"] == os.getpid()
    stream.close()


def test_a_snapshots_totals_are_of_what_is_closed(afresh: Streams) -> None:
    writer = Writer()
    stream = served(writer, keep_alive=0.001)
    writer.write("abc")
    chunks = [next(stream) for _ in range(4)]
    writer.close()
    assert next(stream, None) is None
    stream.close()
    snapshot = afresh.snapshot()
    assert (snapshot["opened"], snapshot["refused"], snapshot["closed"]) == (1, 0, {"done": 1})
    assert (snapshot["events"], snapshot["keep_alives"]) == (1, 2)
    assert snapshot["bytes"] == sum(map(len, chunks))
    assert json.loads(json.dumps(snapshot)) == snapshot


def test_one_line_is_logged_for_each_close_with_its_fields_and_no_data(
    afresh: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ssesync")
    stream = served([Event(SECRET, type=SECRET, id=SECRET)], name="/rooms", threaded=False)
    size = sum(map(len, stream))
    stream.close()
    stream.close()
    [record] = caplog.records
    assert record.name == "ssesync"
    assert record.levelno == logging.INFO
    fields = {"stream": "/rooms", "reason": "done", "events": 1, "bytes": size, "keep_alives": 0}
    assert {name: getattr(record, name) for name in fields} == fields
    assert record.seconds >= 0  # type: ignore[attr-defined]
    assert record.getMessage().startswith(
        f"event stream closed: stream=/rooms reason=done events=1 bytes={size} keep_alives=0 seconds="
    )
    assert SECRET not in caplog.text


def test_only_debugging_logs_a_line_for_each_stream_that_moves(
    afresh: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    for level in (logging.INFO, logging.DEBUG):
        caplog.set_level(level, "ssesync")
        stream = served([Event("x")], threaded=False)
        next(iter(stream))
        key: str = stream._admitted  # type: ignore[assignment]
        afresh.leave(stream, key, CloseReason.TRANSFERRED)
        stream.close()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert afresh.snapshot()["closed"] == {"transferred": 2}


def test_prometheus_shows_the_same(monkeypatch: pytest.MonkeyPatch, afresh: Streams) -> None:
    monkeypatch.setattr("ssesync.prometheus.streams", afresh)
    registry = CollectorRegistry()
    registry.register(StreamsCollector())
    done = served(["a", "b"], threaded=False)
    list(done)
    done.close()
    writer = Writer()
    kept = served(writer)
    next(kept)
    writer.write("abc")
    status(max_streams=1)
    text = generate_latest(registry).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#") and "_created" not in line]
    # Producers of earlier tests may still run.
    assert [line for line in lines if line.startswith("ssesync_producers")] == lines[2:4]
    del lines[2:4]
    assert lines == [
        'ssesync_streams_open{tier="served"} 1.0',
        'ssesync_streams_open{tier="detached"} 0.0',
        "ssesync_pending_bytes 11.0",
        "ssesync_streams_opened_total 2.0",
        "ssesync_streams_refused_total 1.0",
        'ssesync_streams_closed_total{reason="done"} 1.0',
        "ssesync_events_total 3.0",
        "ssesync_bytes_total 26.0",
        "ssesync_keep_alives_total 0.0",
    ]
    kept.close()


def test_reservations_count_like_streams_until_they_end_or_a_stream_comes(
    afresh: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("ssesync.server.limits.time", SimpleNamespace(monotonic=lambda: now))
    assert [afresh.reserve("ann", 2, 5.0) for _ in range(3)] == [True, True, False]
    assert afresh.reserve("bob", 2, 5.0)
    connection: Any = served()
    afresh.receive(connection, "ann")  # in place of one of them
    assert not afresh.reserve("ann", 2, 5.0)
    afresh.withdraw(connection, "ann")
    assert [afresh.reserve("ann", 2, 5.0) for _ in range(2)] == [True, False]
    now += 6.0
    assert [afresh.reserve("ann", 2, 5.0) for _ in range(3)] == [True, True, False]
    assert not afresh._admission._reserved.keys() - {"ann"}
