"""live_stream: the same over real sockets, by Werkzeug's server and by the standard library's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import requests
from flask import Flask, abort, redirect, request

from ssesync import CloseReason, ContentTypeError, Event, EventStream, StatusError, StreamStats, Writer
from ssesync.testing import OpenStream, WaitTimeout, live_stream
from ssesync_flask import event_stream

TIMEOUT = 90.0


def opened(app: Any, url: str = "/", **options: Any) -> OpenStream:
    return live_stream(app, url, timeout=options.pop("timeout", TIMEOUT), **options)


@pytest.fixture(params=["werkzeug", "wsgiref"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "wsgiref":
        monkeypatch.setitem(sys.modules, "werkzeug.serving", None)  # as if it were not installed
    return str(request.param)


def numbers() -> Iterator[Event]:
    number = 0
    while True:
        number += 1
        yield Event(str(number), id=number)


def test_an_endless_stream_is_read_and_left(server: str) -> None:
    closes: list[tuple[CloseReason, StreamStats]] = []
    with opened(EventStream(numbers, on_close=lambda *how: closes.append(how), retry=1500)) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert stream.headers["Server"].lower().startswith("werkzeug" if server == "werkzeug" else "wsgiserver")
        assert [event.data for event in stream.take(3)] == ["1", "2", "3"]
        assert (stream.last_event_id, stream.retry) == ("3", 1500)
        assert not stream.closed
        stream.disconnect()
        assert stream.closed
        stream.wait_finished()
        assert stream.reason == "client_gone"
    assert [reason for reason, _ in closes] == ["client_gone"]


def test_a_silent_view_is_woken_when_the_socket_is_closed(server: str) -> None:
    def waits(writer: Writer) -> None:
        writer.write_event("waiting")
        writer.cancelled.wait(60)

    with opened(EventStream.from_writer(waits, keep_alive=None)) as stream:
        stream.next()
        stream.disconnect()
        assert stream.reason == "client_gone"


def test_a_stream_that_ends_is_read_to_its_end(server: str) -> None:
    with opened(EventStream(lambda: ["a", "b"])) as stream:
        assert [event.data for event in stream.rest()] == ["a", "b"]
        stream.wait_closed()
        assert (stream.reason, stream.comments) == ("done", ["ok"])


def test_a_client_that_stalls_fills_the_buffers_until_the_producer_waits() -> None:
    big = "x" * 100_000
    writer = Writer()
    with opened(EventStream(writer)) as stream:
        assert stream.event_stream is not None
        stream.stall()
        written = 0
        stuck = False
        until = time.monotonic() + TIMEOUT
        while not stuck and time.monotonic() < until:
            if writer.pending[0] < 8:
                writer.write_event(big)
                written += 1
            else:
                # Eight writes wait, and the server sits in the one before them.
                stuck = stream.event_stream.describe()["last_write"] > 0.2
                time.sleep(0.001)
        assert stuck
        stream.resume()
        assert [event.data == big for event in stream.take(written)] == [True] * written
        writer.close()


@pytest.mark.slow
def test_keep_alives_arrive_while_a_view_is_silent(server: str) -> None:
    def source(writer: Writer) -> None:
        writer.cancelled.wait(60)

    with opened(EventStream.from_writer(source, keep_alive=0.02)) as stream:
        assert stream.wait_for_comments(3)[-1] == "keep-alive"
        with pytest.raises(WaitTimeout, match=r"0 events came; .* comments came"):
            stream.next(0.01)


def app_with_errors() -> Flask:
    app = Flask(__name__)

    @app.get("/missing")
    def missing() -> str:
        abort(404)

    @app.get("/page")
    def page() -> str:
        return "a page"

    @app.get("/moved")
    def moved() -> Any:
        return redirect("/echo")

    @app.route("/echo", methods=["GET", "POST"])
    @event_stream
    def echo() -> Iterator[Any]:
        headers = request.headers
        yield [request.method, request.args.to_dict(), headers["Accept"], headers.get("Last-Event-ID"), headers["X"]]

    return app


def test_what_is_no_stream_shows_in_full(server: str) -> None:
    with opened(app_with_errors(), "/missing") as stream:
        assert stream.status == 404
        assert "not found" in stream.text
        with pytest.raises(StatusError, match="404 NOT FOUND"):
            stream.next()
        stream.wait_closed()
    with opened(app_with_errors().test_client(), "/page") as stream:
        assert stream.text == "a page"
        with pytest.raises(ContentTypeError, match="a page"):
            stream.rest()


def test_the_options_are_those_of_requests_and_redirects_are_followed(server: str) -> None:
    options: dict[str, Any] = {"headers": {"X": "y"}, "last_event_id": "5"}
    with opened(app_with_errors(), "/echo?a=1", params={"b": "2"}, method="POST", **options) as stream:
        assert stream.next().json() == ["POST", {"a": "1", "b": "2"}, "text/event-stream", "5", "y"]
    with requests.Session() as session, opened(app_with_errors(), "/moved", session=session, **options) as stream:
        assert stream.next().json()[0] == "GET"
        stream.wait_closed()
        assert stream.reason == "done"


def test_an_application_that_does_not_answer_is_a_timeout() -> None:
    hang = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        hang.wait(60)
        start_response("200 OK", [])
        return [b""]

    with pytest.raises(WaitTimeout, match=r"for an answer. GET /: no answer yet"):
        live_stream(app, timeout=0.05)
    hang.set()


def test_the_server_is_gone_with_the_stream(server: str) -> None:
    with opened(EventStream(numbers)) as stream:
        stream.next()
    with pytest.raises(requests.ConnectionError):
        requests.get(stream.base_url, timeout=5)  # type: ignore[attr-defined]
