"""Streams whose response an error in a middleware has taken the place of, on Django's own handler and a real server."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import override_settings
from django.urls import path

from ssesync_django import event_stream

TIMEOUT = 90

ended = threading.Semaphore(0)
kept: list[BaseException] = []

GetResponse = Callable[[HttpRequest], HttpResponseBase]


@event_stream
def stream(request: HttpRequest) -> Iterator[str]:
    try:
        while True:
            yield "x" * 60_000
    finally:
        ended.release()


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


urlpatterns = [path("stream", stream), path("plain", plain)]


def middleware(get_response: GetResponse) -> GetResponse:
    def respond(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if request.GET.get("how") == "raise":
            try:
                raise LookupError("in a middleware")
            except LookupError as error:
                kept.append(error)  # and all frames with it, as a page for debugging does
                raise
        if request.GET.get("how") == "wrap":
            assert isinstance(response, StreamingHttpResponse)
            return StreamingHttpResponse(response.streaming_content, content_type="text/event-stream")
        return response

    return respond


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    name = f"{__name__}.middleware"
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[name], ALLOWED_HOSTS=["*"], DEBUG=False):
        server = make_server("127.0.0.1", 0, WSGIHandler(), handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        gc.disable()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            gc.enable()
            server.shutdown()
            thread.join(TIMEOUT)
            server.server_close()
            kept.clear()


def test_a_middleware_that_raises_ends_the_stream_that_it_was_given(url: str) -> None:
    with requests.get(f"{url}stream?how=raise", timeout=TIMEOUT) as response:
        assert response.status_code == 500
    assert ended.acquire(timeout=TIMEOUT)
    assert requests.get(f"{url}plain", timeout=TIMEOUT).text == "plain"


def test_a_stream_that_another_response_is_made_of_goes_on(url: str) -> None:
    with requests.get(f"{url}stream?how=wrap", stream=True, timeout=TIMEOUT) as response:
        assert response.status_code == 200
        pieces = response.iter_content(65536)
        assert sum(len(next(pieces)) for _ in range(20)) > 600_000
    assert ended.acquire(timeout=TIMEOUT)


def test_the_request_is_no_garbage_in_the_end(url: str) -> None:
    """What ends the stream hangs on the request, which must not come to hang on itself. With Django 4.2 on CPython 3.10
    all requests do, also those of plain views."""
    seen: dict[str, weakref.ref[HttpRequest]] = {}

    def plain(request: HttpRequest) -> HttpResponse:
        seen["plain"] = weakref.ref(request)
        return HttpResponse("x")

    @event_stream
    def once(request: HttpRequest) -> list[str]:
        seen["once"] = weakref.ref(request)
        return ["x"]

    def is_garbage(name: str) -> bool:
        assert "x" in requests.get(f"{url}{name}", timeout=TIMEOUT).text
        for _ in range(200):
            if seen[name]() is None:
                return False
            threading.Event().wait(0.02)
        return True

    urlpatterns[:0] = [path("plain", plain), path("once", once)]
    try:
        assert not is_garbage("once") or is_garbage("plain")
    finally:
        del urlpatterns[:2]
