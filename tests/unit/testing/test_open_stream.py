"""open_stream over Flask, Werkzeug's client and bare WSGI: reading, leaving, stalling, and never hanging."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import werkzeug.test
from flask import Flask, abort, jsonify, redirect, request, session

from ssesync import CloseReason, ContentTypeError, Event, EventStream, StatusError, StreamStats, Writer
from ssesync.testing import EndOfStream, OpenStream, WaitTimeout, open_stream
from ssesync_flask import event_stream, event_writer

# Longer than any of them takes, for machines that are busy.
TIMEOUT = 90.0


class Ended:
    """An ``on_close`` that keeps what it is told."""

    def __init__(self) -> None:
        self.closes: list[tuple[CloseReason, StreamStats]] = []

    def __call__(self, reason: CloseReason, stats: StreamStats) -> None:
        self.closes.append((reason, stats))

    @property
    def reason(self) -> CloseReason:
        [(reason, _)] = self.closes
        return reason


@pytest.fixture
def ended() -> Ended:
    return Ended()


def numbers() -> Iterator[Event]:
    number = 0
    while True:
        number += 1
        yield Event(str(number), type="tick", id=number)


def opened(app: Any, url: str = "/", **options: Any) -> OpenStream:
    return open_stream(app, url, timeout=options.pop("timeout", TIMEOUT), **options)


def flask_app(source: Any = numbers, **options: Any) -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests only"
    app.testing = True
    app.add_url_rule("/", "view", event_stream(source, **options), methods=["GET", "POST"])
    return app


def kinds_of_app(ended: Ended) -> dict[str, Any]:
    return {
        "Flask": flask_app(on_close=ended),
        "Flask's client": flask_app(on_close=ended).test_client(),
        "Werkzeug's client": werkzeug.test.Client(EventStream(numbers, on_close=ended)),
        "EventStream": EventStream(numbers, on_close=ended),
        "bare": lambda environ, start: EventStream(numbers, on_close=ended)(environ, start),
    }


@pytest.mark.parametrize("kind", kinds_of_app(Ended()))
def test_an_endless_stream_is_read_and_left(kind: str, ended: Ended) -> None:
    with opened(kinds_of_app(ended)[kind]) as stream:
        assert (stream.status, stream.headers["CONTENT-TYPE"]) == (200, "text/event-stream; charset=utf-8")
        assert stream.next() == Event("1", type="tick", id="1")
        assert [event.id for event in stream.take(2)] == ["2", "3"]
        assert next(stream).id == stream.last_event_id == "4"
        assert stream.comments == ["ok"]
        assert stream.body.startswith(b":ok\nid: 1\n")
        assert not stream.closed
        assert stream.reason is None
        stream.disconnect()
        assert stream.closed
        assert ended.reason == stream.reason == "client_gone"
        assert stream.stats is not None
        assert stream.stats.events >= 4


def test_leaving_the_block_leaves_the_stream(ended: Ended) -> None:
    with opened(EventStream(numbers, on_close=ended)) as stream:
        stream.next()
    stream.wait_closed()
    assert ended.reason == "client_gone"


def test_a_stream_that_ends_is_read_to_its_end(ended: Ended) -> None:
    with opened(EventStream(lambda: ["a", "b"], on_close=ended, retry=1500)) as stream:
        assert [event.data for event in stream] == ["a", "b"]
        assert stream.rest() == []
        stream.wait_closed()
        with pytest.raises(EndOfStream, match=r"2 events came, the last: .*'b'.*the body is closed"):
            stream.next()
        assert stream.retry == 1500
    assert ended.reason == "done"


def test_a_view_in_the_middle_of_a_wait_is_woken_when_the_client_leaves(ended: Ended) -> None:
    reasons = []

    def waits(writer: Writer) -> None:
        writer.write_event("waiting")
        writer.cancelled.wait(60)
        reasons.append(writer.reason)

    with opened(EventStream.from_writer(waits, on_close=ended)) as stream:
        stream.next()
        stream.disconnect()
        stream.wait_finished()
    assert reasons == [ended.reason] == ["client_gone"]


def test_a_generator_is_closed_when_the_client_leaves() -> None:
    closed = threading.Event()

    def source() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    with opened(EventStream(source)) as stream:
        stream.next()
        stream.disconnect()
        stream.wait_finished()
        assert closed.is_set()


def test_a_client_that_stalls_is_felt_by_the_producer(ended: Ended) -> None:
    written = 0
    paused = threading.Event()

    def source(writer: Writer) -> None:
        nonlocal written
        while not paused.is_set():
            if writer.pending[0] == 3:
                paused.set()  # the next write waits for the client
            writer.write_event("x")
            written += 1
        writer.finish()

    with opened(EventStream.from_writer(source, on_close=ended, max_pending_events=3)) as stream:
        stream.stall()
        assert paused.wait(TIMEOUT)
        # One write is on its way and three wait.
        assert "the client is stalled" in str(stream)
        stream.resume()
        assert stream.rest()[-1].type == "done"
        stream.wait_closed()
        assert stream.stats is not None
        assert written == stream.stats.events - 1


@pytest.mark.slow
def test_nothing_arrives_while_the_client_is_stalled() -> None:
    go = threading.Semaphore(0)

    def source() -> Iterator[str]:
        while go.acquire(timeout=TIMEOUT):
            yield "x"

    with opened(EventStream(source)) as stream:
        go.release()
        stream.next()
        stream.stall()
        go.release()
        with pytest.raises(WaitTimeout, match="the client is stalled"):
            stream.next(0.1)
        stream.resume()
        stream.next()
    go.release()  # the producer is in a wait of its own, which nothing but this ends
    stream.wait_finished()


@pytest.mark.slow
def test_a_client_that_stalls_for_too_long_is_cut_off(ended: Ended) -> None:
    with opened(EventStream(numbers, on_close=ended, send_timeout=0.05)) as stream:
        stream.next()
        stream.stall()
        stream.wait_closed()
        assert ended.reason == "stalled"
        stream.resume()
        with pytest.raises(ConnectionResetError):
            stream.rest()


def test_a_client_reads_only_so_far_ahead_of_the_test() -> None:
    """So that an endless source does not fill the memory while the test does something else."""
    with opened(EventStream(numbers)) as stream:
        until = time.monotonic() + TIMEOUT
        while "reads no further" not in str(stream) and time.monotonic() < until:
            time.sleep(0.001)
        assert "reads no further" in str(stream)
        assert [int(event.data or "") for event in stream.take(3000)] == list(range(1, 3001))


def test_a_wait_that_times_out_lists_the_events_that_arrived() -> None:
    def source(writer: Writer) -> None:
        writer.write_event("one", type="first")
        writer.write_comment("hello")
        writer.cancelled.wait(60)

    with opened(EventStream.from_writer(source)) as stream:
        stream.next()
        stream.wait_for_comments(2)
        with pytest.raises(WaitTimeout) as caught:
            stream.next(timeout=0.05)
    assert str(caught.value) == (
        "waited 0.05 s for an event. GET /: 200 OK, text/event-stream; charset=utf-8; 1 event came, the last: "
        "ReceivedEvent('one', type='first'); 2 comments came, the last: 'hello'; the body is open"
    )
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.slow
def test_every_wait_is_bounded() -> None:
    hang = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"data: x\n\n"
        hang.wait(60)

    with opened(app) as stream:
        stream.next()
        stream.timeout = 0.05
        for wait in (
            stream.next,
            stream.rest,
            stream.disconnect,
            stream.wait_closed,
            stream.wait_finished,
            lambda: stream.take(2),
            lambda: list(stream),
            stream.wait_for_comments,
        ):
            with pytest.raises(WaitTimeout, match=r"^waited \S+ s for .*1 event came"):
                wait()
    hang.set()


def test_an_application_that_does_not_answer_is_a_timeout() -> None:
    hang = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        hang.wait(60)
        return []

    with pytest.raises(WaitTimeout, match=r"waited 0.05 s for an answer. GET /slow\?a=1: no answer yet"):
        open_stream(app, "/slow?a=1", timeout=0.05)
    hang.set()


def test_keep_alives_are_sent_while_a_view_is_silent() -> None:
    def source(writer: Writer) -> None:
        writer.cancelled.wait(60)

    with opened(EventStream.from_writer(source, keep_alive=0.01, first_event_timeout=0)) as stream:
        assert stream.wait_for_comments(4)[:4] == ["ok", "keep-alive", "keep-alive", "keep-alive"]


def errors_app() -> Flask:
    app = Flask(__name__)

    @app.get("/missing")
    @event_stream
    def missing() -> Iterator[str]:
        abort(404)
        yield "x"

    @app.get("/busy")
    def busy() -> Any:
        return jsonify(error="busy"), 503, {"Retry-After": "3"}

    @app.get("/page")
    def page() -> str:
        return "a page"

    @app.get("/fails")
    def fails() -> str:
        raise LookupError("of the view")

    @app.get("/moved")
    def moved() -> Any:
        return redirect("/page")

    @app.get("/finished")
    @event_stream(finished=lambda last_event_id: last_event_id == "9")
    def finished() -> Iterator[str]:
        yield "x"

    return app


def test_a_status_that_is_no_stream_shows_in_full() -> None:
    with opened(errors_app(), "/busy") as stream:
        assert (stream.status, stream.headers["Retry-After"]) == (503, "3")
        assert stream.text == '{"error":"busy"}\n'
        with pytest.raises(StatusError, match=r"503 SERVICE UNAVAILABLE instead of 200.*busy") as caught:
            stream.next()
        assert caught.value.body == stream.body
        assert caught.value.response is stream
    with opened(errors_app(), "/missing") as stream:
        assert stream.status == 404
        assert "not found" in stream.text


def test_a_page_instead_of_a_stream_is_a_wrong_type() -> None:
    with opened(errors_app(), "/page") as stream:
        assert stream.text == "a page"
        with pytest.raises(ContentTypeError, match=r"text/html.*a page"):
            list(stream)


def test_204_is_a_stream_without_events() -> None:
    with opened(errors_app(), "/finished", last_event_id="9") as stream:
        assert stream.status == 204
        assert list(stream) == []
        with pytest.raises(EndOfStream):
            stream.next()


def test_what_a_view_raises_is_raised_where_the_framework_lets_it_out() -> None:
    app = errors_app()
    with opened(app, "/fails") as stream:
        assert stream.status == 500
    app.testing = True
    with pytest.raises(LookupError, match="of the view"):
        opened(app, "/fails")


def test_what_a_body_raises_comes_after_its_events() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"data: x\n\n"
        raise LookupError("of the body")

    with opened(app) as stream:
        assert stream.next().data == "x"
        with pytest.raises(LookupError, match="of the body"):
            stream.next()
        assert "it failed: LookupError" in str(stream)


def test_a_client_with_follow_redirects_follows_a_redirect() -> None:
    with opened(errors_app().test_client(), "/moved") as stream:
        assert (stream.status, stream.headers["Location"]) == (302, "/page")
    with opened(errors_app().test_client(), "/moved", follow_redirects=True) as stream:
        assert stream.text == "a page"


def test_a_flask_clients_session_and_cookies_are_used_and_kept() -> None:
    def view() -> Iterator[str]:
        yield f"{session['user']} {request.cookies['old']}"

    app = flask_app(view)

    @app.get("/login")
    def login() -> str:
        session["user"] = "ada"
        return "welcome"

    client = app.test_client()
    client.set_cookie("old", "yes")
    with opened(client, "/login") as stream:
        assert stream.text == "welcome"
    with opened(client) as stream:
        assert stream.next().data == "ada yes"
    with client, opened(client, "/?q=1") as stream:
        stream.next()
        assert request.args["q"] == "1"


def test_the_options_are_those_of_the_client() -> None:
    def view() -> Iterator[Any]:
        yield [request.method, request.json, request.args["q"], request.headers["X-Mine"], request.headers["Accept"]]

    with opened(
        flask_app(view), "/", method="POST", json={"a": 1}, query_string={"q": "x"}, headers={"X-Mine": "y"}
    ) as stream:
        assert stream.next().json() == ["POST", {"a": 1}, "x", "y", "text/event-stream"]


def test_the_options_make_the_request_of_a_bare_wsgi_application() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH", "0"))).decode()
        names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_HOST", "CONTENT_TYPE", "HTTP_ACCEPT", "x.y")
        answer = {name: environ.get(name) for name in names} | {"body": body}
        return EventStream(lambda: [answer])(environ, start_response)

    with opened(
        app, "https://example.org/a%20b?c=d", method="PUT", query={"e": ["f", "g"]}, data={"h": "i j"},
        headers={"Accept": "*/*"}, environ={"x.y": 1},
    ) as stream:  # fmt: skip
        assert stream.next().json() == {
            "REQUEST_METHOD": "PUT",
            "PATH_INFO": "/a b",
            "QUERY_STRING": "c=d&e=f&e=g",
            "HTTP_HOST": "example.org",
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "HTTP_ACCEPT": "*/*",
            "x.y": 1,
            "body": "h=i+j",
        }
    with opened(app, method="POST", json=[1]) as stream:
        assert stream.next().json()["body"] == "[1]"
    with pytest.raises(TypeError, match="follow"):
        opened(app, follow=True)


def test_the_last_event_id_is_sent_as_utf_8() -> None:
    def source(writer: Writer) -> None:
        writer.write_event(writer.last_event_id)

    with opened(EventStream.from_writer(source), last_event_id="ä1") as stream:
        assert stream.next().data == "ä1"


def test_the_view_runs_in_a_copy_of_the_tests_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("the test")
    with opened(EventStream(lambda: [who.get()])) as stream:
        assert stream.next().data == "the test"


def test_a_writer_that_the_test_itself_writes_to() -> None:
    writer = Writer()
    with opened(EventStream(writer)) as stream:
        for word in ("a", "b"):
            writer.write_event(word)
            assert stream.next().data == word
        writer.close()
        assert stream.rest() == []


@pytest.mark.parametrize("start_twice", [True, False])
def test_an_application_that_breaks_the_protocol_is_found_out(start_twice: bool) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        for _ in range(2 if start_twice else 0):
            start_response("200 OK", [])
        return [b"x"]

    with pytest.raises(AssertionError, match="start_response"):
        opened(app)


def test_the_write_callable_of_old_and_a_late_error_page() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        try:
            raise LookupError
        except LookupError:
            write = start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        write(b"one ")
        return [b"two"]

    with opened(app) as stream:
        assert (stream.status, stream.text) == (500, "one two")


@pytest.mark.parametrize("wrong", [None, "app", object()])
def test_what_is_no_application_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected a WSGI application, or a test client"):
        open_stream(wrong)


@pytest.mark.slow
def test_a_hundred_streams_leak_no_resources(ended: Ended) -> None:
    app = EventStream(numbers, on_close=ended)
    streams = [opened(app) for _ in range(100)]
    for stream in streams:
        assert stream.next().data == "1"
    for stream in streams:
        stream.disconnect()
        stream.wait_finished(TIMEOUT)
    assert {reason for reason, _ in ended.closes} == {"client_gone"}
    assert len(ended.closes) == 100


@pytest.mark.parametrize("make", [event_stream, event_writer])
def test_a_view_with_threaded_false_runs_in_the_servers_thread(make: Callable[..., Any]) -> None:
    where = []

    def generates() -> Iterator[str]:
        where.append(threading.current_thread().name)
        yield "x"

    def writes(w: Writer) -> None:
        where.append(threading.current_thread().name)
        w.write("x")

    app = Flask(__name__)
    app.add_url_rule("/", "view", make(threaded=False)(generates if make is event_stream else writes))
    with opened(app) as stream:
        assert stream.next().data == "x"
    assert where == ["ssesync-open-stream"]
