"""Streams whose response an error has taken the place of, on Werkzeug's server, its debugger between."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from flask import Flask, Response, request
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import make_server

from ssesync import Writer
from ssesync_flask import EventStreamResponse, event_stream, event_writer

TIMEOUT = 90


class Site:
    """A Flask application, served. ``ended`` is released when a producer has ended."""

    def __init__(self, *, debugger: bool) -> None:
        self.ended = threading.Semaphore(0)
        self.app = app = Flask(__name__)
        app.config["PROPAGATE_EXCEPTIONS"] = debugger

        @app.get("/stream")
        @event_stream
        def stream() -> Iterator[str]:
            try:
                while True:
                    yield "x" * 60_000
            finally:
                self.ended.release()

        @app.get("/writer")
        @event_writer
        def writer(w: Writer) -> None:
            w.write("x")
            w.cancelled.wait(TIMEOUT)
            self.ended.release()

        @app.after_request
        def after(response: Response) -> Response:
            if request.args.get("how") == "raise":
                raise LookupError("in after_request")
            if request.args.get("how") == "wrap":
                return Response(response.response, content_type="text/event-stream")
            return response

        served: Any = DebuggedApplication(app, evalex=True, pin_security=False) if debugger else app
        self._server = make_server("127.0.0.1", 0, served, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(TIMEOUT)
        self._server.server_close()

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self._server.server_port}{path}", stream=True, timeout=TIMEOUT)


@pytest.fixture(autouse=True)
def no_garbage_is_collected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/stream", "/writer"])
@pytest.mark.parametrize("debugger", [True, False], ids=["debugger", "plain"])
def test_after_request_that_raises_ends_the_stream_that_it_was_given(path: str, debugger: bool) -> None:
    with Site(debugger=debugger) as site:
        with site.get(f"{path}?how=raise") as response:
            assert response.status_code == 500
        assert site.ended.acquire(timeout=TIMEOUT)


@pytest.mark.slow
def test_a_stream_that_another_response_is_made_of_goes_on() -> None:
    with Site(debugger=False) as site:
        with site.get("/stream?how=wrap") as response:
            assert response.status_code == 200
            assert (
                len(b"".join(chunk for chunk, _ in zip(response.iter_content(65536), range(20), strict=False)))
                > 600_000
            )
        assert site.ended.acquire(timeout=TIMEOUT)


@pytest.mark.slow
def test_a_stream_that_the_handler_of_an_error_answers_is_sent() -> None:
    app = Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/")
    def view() -> str:
        return "fine"

    @app.after_request
    def after(response: Response) -> Response:
        if response.status_code == 200 and response.mimetype != "text/event-stream":
            raise LookupError
        return response

    @app.errorhandler(500)
    def handled(error: Exception) -> EventStreamResponse:
        return EventStreamResponse(["the error handler's"])

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        response = requests.get(f"http://127.0.0.1:{server.server_port}/", timeout=TIMEOUT)
        assert "the error handler's" in response.text
    finally:
        server.shutdown()
        thread.join(TIMEOUT)
        server.server_close()
