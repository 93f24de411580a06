"""Beside Flask's popular extensions, and functions that applications put behind a view. test_wire.py has the wire."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import brotli
import pytest
from flask import Flask, Response, request
from flask_caching import Cache
from flask_compress import Compress

from ssesync import Event, streams
from ssesync.wire import Decoder
from ssesync_flask import EventStreamResponse, event_stream


class Streaming:
    """An application with a stream, and what became of that."""

    def __init__(self) -> None:
        self.app = Flask(__name__)
        self.closed: list[str] = []
        self.ended = threading.Event()

        @self.app.get("/events")
        @event_stream(on_close=lambda reason, stats: self.closed.append(reason))
        def events() -> Iterator[Event]:
            try:
                for number in range(3):
                    yield Event("x" * 300, id=number)
            finally:
                self.ended.set()

        @self.app.get("/plain")
        def plain() -> str:
            return "plain" * 200


@pytest.fixture
def streaming() -> Iterator[Streaming]:
    before = len(streams.all())
    yield Streaming()
    # A traceback may hold a stream. A stream that is garbage is closed on a helper thread, which may not have run yet.
    for _ in range(500):
        gc.collect()
        if len(streams.all()) == before:
            break
        time.sleep(0.02)
    assert len(streams.all()) == before, "a stream was left open"


def ids(body: bytes) -> list[str]:
    return [event.id or "" for event in Decoder().feed(body)]


# after_request


def test_a_body_that_is_put_round_the_streams_is_what_is_sent(streaming: Streaming) -> None:
    counted: list[Any] = []

    @streaming.app.after_request
    def count(response: Response) -> Response:
        inner = response.response

        def counting() -> Iterator[Any]:
            size = 0
            for chunk in inner:
                size += len(chunk)
                yield chunk
            counted.append(size)

        response.response = counting()
        response.call_on_close(lambda: counted.append("closed"))
        return response

    response = streaming.app.test_client().get("/events")
    assert ids(response.data) == ["0", "1", "2"]
    response.close()
    assert counted == [len(response.data), "closed"]
    assert streaming.closed == ["done"]


def test_a_client_that_leaves_ends_the_stream_under_a_body_that_does_not_close_it(streaming: Streaming) -> None:
    class Opaque:
        def __init__(self, chunks: Any) -> None:
            self._chunks = iter(chunks)

        def __iter__(self) -> Iterator[bytes]:
            return self._chunks

    @streaming.app.after_request
    def wrap(response: Response) -> Response:
        response.response = Opaque(response.response)
        return response

    response = streaming.app.test_client().get("/events")
    next(response.iter_encoded())
    response.close()
    assert streaming.closed == ["client_gone"]
    assert streaming.ended.wait(90)


def test_a_body_in_place_of_the_streams_is_sent_and_the_stream_is_ended(streaming: Streaming) -> None:
    @streaming.app.after_request
    def replace(response: Response) -> Response:
        response.set_data("closed for today")
        return response

    response = streaming.app.test_client().get("/events")
    assert (response.data, response.headers["Content-Length"]) == (b"closed for today", "16")
    response.close()
    assert streaming.closed == ["cancelled"]


def test_text_in_the_new_body_is_encoded(streaming: Streaming) -> None:
    @streaming.app.after_request
    def replace(response: Response) -> Response:
        response.response = iter(["data: ü\n", "\n"])
        return response

    assert streaming.app.test_client().get("/events").data == "data: ü\n\n".encode()


@pytest.mark.parametrize("status", [101, 204, 304])
def test_a_status_without_a_body_ends_the_producer_at_once(streaming: Streaming, status: int) -> None:
    @streaming.app.after_request
    def change(response: Response) -> Response:
        response.status_code = status
        return response

    with streaming.app.test_request_context("/events"):
        answer = streaming.app.full_dispatch_request()
        body = answer.get_app_iter(request.environ)
        assert streaming.ended.wait(90)
        assert streaming.closed == ["cancelled"]
        assert list(body) == []


def test_a_callback_that_fails_leaves_no_stream_open(streaming: Streaming) -> None:
    @streaming.app.after_request
    def add(response: Response) -> Response:
        response.call_on_close(lambda: 1 / 0)
        response.response = iter([b"instead"])
        return response

    response = streaming.app.test_client().get("/events")
    with pytest.raises(ZeroDivisionError):
        response.close()
    assert streaming.closed == ["cancelled"]


# Flask-Compress


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip"])
def test_flask_compress_stands_back(streaming: Streaming, coding: str) -> None:
    streaming.app.config["COMPRESS_MIMETYPES"] = ["text/html", "text/event-stream"]
    Compress(streaming.app)
    client = streaming.app.test_client()
    response = client.get("/events", headers={"Accept-Encoding": coding})
    assert response.headers["Content-Encoding"] == "identity"
    assert ids(response.data) == ["0", "1", "2"]
    assert client.get("/plain", headers={"Accept-Encoding": coding}).headers["Content-Encoding"] == coding


def test_with_another_header_of_ones_own_flask_compress_compresses_and_that_is_what_is_sent(
    streaming: Streaming,
) -> None:
    streaming.app.config["COMPRESS_MIMETYPES"] = ["text/event-stream"]
    Compress(streaming.app)

    @streaming.app.after_request  # runs before Flask-Compress', which was registered earlier
    def compress_it_all_the_same(response: Response) -> Response:
        del response.headers["Content-Encoding"]
        return response

    response = streaming.app.test_client().get("/events", headers={"Accept-Encoding": "br"})
    assert response.headers["Content-Encoding"] == "br"
    assert ids(brotli.decompress(response.data)) == ["0", "1", "2"]
    response.close()
    assert streaming.closed == ["done"]


# Flask-Caching


def test_flask_caching_does_not_keep_a_stream_and_the_log_says_what_to_do(
    streaming: Streaming, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(streaming.app, config={"CACHE_TYPE": "SimpleCache"})
    numbers = iter(range(10))

    @streaming.app.get("/cached")
    @cache.cached()
    @event_stream
    def cached() -> Iterator[Any]:
        yield next(numbers)

    @streaming.app.get("/page")
    @cache.cached()
    def page() -> str:
        return str(next(numbers))

    client = streaming.app.test_client()
    with caplog.at_level(logging.ERROR):
        assert [Decoder().feed(client.get("/cached").data)[0].data for _ in range(2)] == ["0", "1"]
    assert "take the view out of the cache" in caplog.text
    assert [client.get("/page").text for _ in range(2)] == ["2", "2"]


def test_flask_caching_raises_in_debug_mode(streaming: Streaming) -> None:
    streaming.app.debug = True
    cache = Cache(streaming.app, config={"CACHE_TYPE": "SimpleCache"})
    streaming.app.add_url_rule("/cached", view_func=cache.cached()(lambda: EventStreamResponse(["a"])))
    with pytest.raises(TypeError, match="take the view out of the cache"):
        streaming.app.test_client().get("/cached")
