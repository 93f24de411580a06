"""How a stream ends that its producer did not end: who is told what, and which streams may finish."""

from __future__ import annotations

import logging
import re
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync import Event, EventStream, StreamClosed, Writer, drain
from ssesync.server import shutdown
from ssesync.server.factory import WriterFunction
from ssesync.server.stream import join_producer

from .draining import TIMEOUT, undo_drain
from .test_mailbox import Running
from .test_stream import environ, events

RETRY = re.compile(rb"retry: \d+\n")
BROWSER = {"HTTP_ACCEPT": "text/event-stream"}


@pytest.fixture(autouse=True)
def admitted_again() -> Iterator[None]:
    yield
    undo_drain()


def served(source: Any, request: dict[str, str] | None = None, **options: Any) -> EventStream:
    stream = EventStream(source, **options)
    assert stream.open(environ(**(request or {}))) == "200 OK"
    next(stream)
    return stream


def with_id() -> Writer:
    writer = Writer()
    writer.write_event("x", id=1)
    return writer


def without_id() -> Writer:
    writer = Writer()
    writer.write_event("x")
    return writer


def raw(data: bytes) -> Any:
    def make() -> Writer:
        writer = Writer()
        writer.write_raw(data, events=1)
        return writer

    return make


POST = {"REQUEST_METHOD": "POST"}
POST_OF_A_BROWSER = BROWSER | POST


@pytest.mark.parametrize(
    ("make", "request_", "options", "orderly"),
    [
        pytest.param(without_id, {}, {}, False, id="a GET without ids"),
        pytest.param(with_id, {}, {}, True, id="a GET with ids"),
        pytest.param(without_id, BROWSER, {}, True, id="an EventSource"),
        pytest.param(without_id, {"HTTP_ACCEPT": "Text/Event-Stream "}, {}, True, id="in capitals"),
        pytest.param(without_id, {"HTTP_ACCEPT": "text/event-stream, */*"}, {}, False, id="accepts more"),
        pytest.param(without_id, {"HTTP_ACCEPT": "*/*"}, {}, False, id="accepts all"),
        pytest.param(with_id, POST, {}, False, id="a POST with ids"),
        pytest.param(without_id, POST_OF_A_BROWSER, {}, False, id="a POST that accepts event streams only"),
        pytest.param(with_id, {"REQUEST_METHOD": "PUT"}, {}, False, id="a PUT"),
        pytest.param(with_id, {}, {"resumable": False}, False, id="said not to be, with ids"),
        pytest.param(without_id, BROWSER, {"resumable": False}, False, id="said not to be, an EventSource"),
        pytest.param(without_id, POST, {"resumable": True}, True, id="said to be"),
        pytest.param(raw(b"data: x\n\n"), {}, {}, False, id="relayed without ids"),
        pytest.param(raw(b"id: 7\ndata: x\n\n"), {}, {}, True, id="relayed, id first"),
        pytest.param(raw(b"data: x\r\nid:7\r\n\r\n"), {}, {}, True, id="relayed, id last"),
        pytest.param(raw(b"data: id: 7\n\n"), {}, {}, False, id="relayed, an id in the data"),
        pytest.param(raw(b"id: 7\ndata: x\n\nid:\ndata: y\n\n"), {}, {}, False, id="relayed, the id is reset"),
        pytest.param(raw(b"id: \ndata: x\n\n"), {}, {}, False, id="relayed, an empty id"),
    ],
)
@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_client_that_can_resume_gets_a_reconnection_time_and_any_other_an_error_event(
    make: Any, request_: dict[str, str], options: dict[str, Any], orderly: bool, how: str
) -> None:
    stream = served(make(), request_, **options)
    getattr(stream, how)("lifetime")
    *waited, last = list(stream)
    # What waits is sent, or dropped.
    assert len(waited) == (how == "stop")
    if orderly:
        assert RETRY.fullmatch(last)
    else:
        assert events([last])[0].type == "error"
        assert "lifetime" in events([last])[0].json()["message"]
    # So the process waits for those who can't come back.
    assert stream.finishes is not orderly


def test_an_id_that_was_reset_can_not_be_resumed_from() -> None:
    writer = with_id()
    stream = served(writer)
    assert not stream.finishes
    writer.write_event("y", id="")
    assert stream.finishes
    with writer.batch():
        writer.write_event("z", id=2)
        assert stream.finishes
    assert not stream.finishes


def test_an_id_that_was_never_sent_can_not_be_resumed_from() -> None:
    writer = Writer()
    stream = served(writer)
    writer.stop("shutdown")
    with pytest.raises(StreamClosed):
        writer.write_event("too late", id=1)
    with pytest.raises(StreamClosed), writer.batch():
        writer.write_raw(b"id: 1\ndata: too late\n\n", events=1)
    assert events(list(stream))[0].type == "error"


def test_before_it_is_opened_a_stream_can_be_ended() -> None:
    stream = EventStream(["x"])
    stream.cancel()
    stream.close()
    assert list(stream) == []


def test_a_failure_is_no_orderly_end_for_an_event_source_without_ids(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Iterator[str]:
        yield "x"
        raise ValueError("secret")

    for request, ending in [(BROWSER, False), (BROWSER | {"REQUEST_METHOD": "POST"}, False)]:
        stream = EventStream(fail)
        stream.open(environ(**request))
        *_, last = events(list(stream))
        assert last.type == "error"
        assert stream._ending.is_orderly(False, stream.reason) is ending
    assert "secret" in caplog.text


def yields(*data: str) -> Any:
    return lambda: iter(data)


def writes(*data: str) -> Any:
    def write(writer: Writer) -> None:
        for each in data:
            writer.write(each)

    return WriterFunction(write)


def written(*data: str) -> Any:
    writer = Writer()
    for each in data:
        writer.write(each)
    writer.close()
    return writer


@pytest.mark.parametrize(
    ("make", "options"),
    [(yields, {"threaded": True}), (yields, {"threaded": False}), (writes, {"threaded": False}), (written, {})],
    ids=["threaded", "inline", "inline function", "writer"],
)
def test_a_stream_that_is_cancelled_after_its_producers_end_is_not_done(make: Any, options: dict[str, Any]) -> None:
    closed: list[Any] = []
    stream = served(make("a", "b" * 70_000, "c"), on_close=lambda reason, stats: closed.append(reason), **options)
    while not stream._output.rest:  # a generator that runs inline has then not ended, and the others have
        next(stream)
    stream.cancel()
    assert b"".join(stream) == b""  # behind half an event nothing can follow
    assert stream._ending.torn
    stream.close()
    assert closed == [stream.reason] == ["cancelled"]

    closed.clear()
    stream = served(make("a", "b"), on_close=lambda reason, stats: closed.append(reason), **options)
    if options.get("threaded"):
        assert join_producer(stream, TIMEOUT)
    stream.cancel()
    *_, last = events(list(stream))
    assert last.type == "error"
    stream.close()
    assert closed == [stream.reason] == ["cancelled"]


def test_a_cancel_after_all_was_sent_changes_nothing() -> None:
    stream = served(written("a"))
    assert next(stream) == b"data: a\n\n"
    stream.cancel()
    assert list(stream) == []
    assert stream.reason == "done"


@pytest.mark.parametrize(("taken", "reason"), [(0, "client_gone"), (1, "client_gone"), (3, "done")])
def test_a_client_that_leaves_before_it_has_all_is_gone(taken: int, reason: str) -> None:
    """The server closes the stream where it can't send."""
    closed: list[Any] = []
    stream = served(written("a", "b" * 70_000), on_close=lambda reason, stats: closed.append(reason))
    for _ in range(taken):
        next(stream)
    stream.close()
    assert closed == [stream.reason] == [reason]


def test_after_a_part_of_an_event_no_error_event_is_sent() -> None:
    writer = Writer()
    writer.write("x" * 200_000)
    stream = served(writer)
    assert len(next(stream)) == 65536
    stream.cancel()
    assert list(stream) == []


@pytest.mark.parametrize("reason", ["client_gone", "stalled"])
def test_an_absent_client_is_sent_no_bytes(reason: str) -> None:
    stream = served(without_id())
    stream.cancel(reason)
    assert list(stream) == []


def fails() -> Iterator[Any]:
    yield "x"
    raise ValueError("secret")


def run_error(error: BaseException) -> Event:
    return Event.from_json({"type": "RUN_ERROR", "message": type(error).__name__})


@pytest.mark.parametrize("threaded", [True, False], ids=["threaded", "inline"])
@pytest.mark.parametrize(
    ("error_event", "expected"),
    [
        (Event.from_json({"type": "error", "errorText": "It failed."}), {"type": "error", "errorText": "It failed."}),
        (run_error, {"type": "RUN_ERROR", "message": "ValueError"}),
    ],
    ids=["an event", "a function"],
)
def test_the_error_event_can_have_another_shape(error_event: Any, expected: dict[str, str], threaded: bool) -> None:
    stream = served(fails, error_event=error_event, threaded=threaded)
    *_, last = events(list(stream))
    assert (last.type, last.json()) == ("message", expected)


def test_the_function_gets_the_reason_of_any_other_end() -> None:
    seen: list[BaseException] = []

    def make(error: BaseException) -> Event:
        seen.append(error)
        return Event("over")

    stream = served(Writer(), error_event=make)
    stream.stop("shutdown")
    assert [event.data for event in events(list(stream))] == ["over"]
    [error] = seen
    assert isinstance(error, StreamClosed)
    assert error.reason == "shutdown"


def test_a_client_that_can_resume_is_shown_no_error_event_unless_the_producer_raised() -> None:
    stream = served(Writer(), BROWSER, error_event=Event("over"))
    stream.stop("shutdown")
    assert RETRY.fullmatch(b"".join(stream))


def raises(error: BaseException) -> Event:
    raise LookupError("it fails, too")


@pytest.mark.parametrize(
    "error_event",
    [raises, lambda error: None, lambda error: "text", lambda error: Event(comment="no data")],
    ids=["raises", "None", "text", "without data"],
)
def test_a_function_that_fails_is_logged_and_the_client_gets_the_default(
    error_event: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stream = served(fails, error_event=error_event, name="/the/path")
    *_, last = events(list(stream))
    assert last.json()["error"]["type"] == "server_error"
    assert "error_event of the event stream /the/path failed" in caplog.text


def test_what_the_producer_raised_is_let_go_of() -> None:
    class Error(Exception):
        pass

    held = []

    def fail() -> Iterator[str]:
        yield "x"
        error = Error()
        held.append(error)
        raise error

    stream = served(fail)
    list(stream)
    assert stream._source is not None
    assert stream._source.error is None


@pytest.mark.slow
def test_by_default_streams_that_can_not_be_resumed_finish_and_all_others_end_at_once() -> None:
    answer, browser, counted = Writer(), Writer(), with_id()
    finishing = served(answer, POST)
    ended = [served(browser, BROWSER), served(counted)]
    drain()
    for stream in ended:
        assert RETRY.search(b"".join(stream))
    answer.write("the rest")
    answer.close()
    assert b"".join(finishing) == b"data: the rest\n\n"
    assert finishing.reason == "done"


@pytest.mark.slow
def test_with_the_old_default_all_streams_end_at_once() -> None:
    stream = served(Writer(), POST, drain="end")
    drain()
    [last] = events(list(stream))
    assert last.type == "error"


@pytest.mark.slow
def test_a_stream_that_becomes_resumable_while_it_finishes_ends() -> None:
    writer = Writer()
    stream = served(writer)
    drain()
    serving = Running(lambda: b"".join(stream))
    assert serving.blocked()
    writer.write_event("x", id=1)
    assert re.fullmatch(rb"id: 1\ndata: x\n\nretry: \d+\n", serving.join())


@pytest.mark.slow
def test_a_stream_that_did_not_finish_in_time_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    stream = served(Writer(), POST, drain_timeout=0.3, name="/the/path")
    drain()
    *_, last = events([b"".join(stream)])
    assert "stopping" in last.json()["message"]
    # The log is written on a helper thread.
    deadline = time.monotonic() + TIMEOUT
    lines: list[str] = []
    while not lines and time.monotonic() < deadline:
        time.sleep(0.01)
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    [line] = lines
    assert "/the/path was still running 0.3 s" in line
    assert "drain_timeout=0.3" in line


@pytest.mark.slow
def test_a_quick_stop_waits_only_for_streams_with_drain_finish() -> None:
    finishing_writer = Writer()
    finishing, ended = served(finishing_writer, POST, drain="finish"), served(Writer(), POST)
    shutdown._drain(None, quickly=True)
    assert events(list(ended))[0].type == "error"
    finishing_writer.close()
    assert list(finishing) == []
    assert finishing.reason == "done"


@pytest.mark.parametrize(
    ("options", "graceful", "expected"),
    [
        ({}, None, 20),
        ({"drain_timeout": 100}, None, 100),
        ({}, 30, 20),
        ({}, 12, 10),
        ({}, 1, 0),
        ({"drain_timeout": 3}, 30, 3),
        ({"drain": "finish"}, 12, 10),
    ],
)
def test_the_time_to_finish_ends_before_gunicorns_graceful_timeout(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], graceful: int | None, expected: float
) -> None:
    worker = types.SimpleNamespace(cfg=types.SimpleNamespace(graceful_timeout=graceful))
    monkeypatch.setattr(shutdown, "gunicorn_worker", lambda: None if graceful is None else worker)
    assert shutdown.time_to_finish(EventStream([], **options).settings) == expected
