"""Responses made in asynchronous views, through Django's own handlers. The event loop of a real server is in
tests/live/frameworks/test_django_asgi.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.test import AsyncClient, AsyncRequestFactory, Client, override_settings
from django.urls import path
from django.utils.cache import patch_vary_headers

from ssesync import Event
from ssesync.wire import Decoder
from ssesync_django import ChannelView, EventStreamResponse, publish, subscribe, ticket_required

closed: list[tuple[str, int]] = []
LOOP: list[int] = []


def on_close(reason: str, stats: Any) -> None:
    closed.append((str(reason), threading.get_ident()))


def produce() -> Iterator[Any]:
    with pytest.raises(RuntimeError):  # there is none on the producer's thread
        asyncio.get_running_loop()
    yield "a"
    yield "b"


async def stream(request: HttpRequest) -> HttpResponseBase:
    LOOP.append(threading.get_ident())
    response = EventStreamResponse(produce, request=request, on_close=on_close, headers={"X-A": "1"})
    response["X-A"] = "2"
    response.set_cookie("seen", "yes")
    patch_vary_headers(response, ["Accept-Language"])
    return response


async def raises(request: HttpRequest, what: str) -> HttpResponseBase:
    def produce() -> Iterator[str]:
        raise {"missing": Http404, "denied": PermissionDenied, "failed": ValueError}[what]
        yield

    return EventStreamResponse(produce, request=request, first_event_timeout=30)


async def finished(request: HttpRequest) -> HttpResponseBase:
    return EventStreamResponse(produce, request=request, finished=lambda last_event_id: User.objects.count() == 0)


async def same_origin(request: HttpRequest) -> HttpResponseBase:
    origins = {"same_origin_only": True, "cors_origins": ["https://app.example"]}
    response = EventStreamResponse(produce, request=request, **origins)
    patch_vary_headers(response, ["Accept-Language"])
    return response


async def room(request: HttpRequest) -> HttpResponseBase:
    LOOP.append(threading.get_ident())

    def authorize(request: HttpRequest, channel: str) -> bool:
        assert threading.get_ident() != LOOP[-1]
        return User.objects.count() == 0 and "no" not in request.GET

    def on_connect(subscription: Any) -> list[str]:
        return [f"users: {User.objects.count()}"]

    return subscribe(request, "room", authorize=authorize, on_connect=on_connect, on_close=on_close)


class Awaited(ChannelView):
    channels = ("room",)

    async def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return super().get(request)


async def wrapped(request: HttpRequest) -> HttpResponseBase:
    response = subscribe(request, "room")
    response.streaming_content = (chunk.replace(b"data: x", b"data: y") for chunk in response.streaming_content)
    response.add_post_render_callback(lambda response: response.headers.setdefault("X-Rendered", "yes") and None)
    return response


async def asynchronous(request: HttpRequest) -> HttpResponseBase:
    response = EventStreamResponse(["a"], request=request, on_close=on_close)

    async def instead() -> AsyncIterator[bytes]:
        yield b"data: instead\n\n"

    response.streaming_content = instead()
    return response


urlpatterns = [
    path("stream", stream),
    path("raises/<what>", raises),
    path("finished", finished),
    path("same_origin", same_origin),
    path("room", room),
    path("class", Awaited.as_view()),
    path("wrapped", wrapped),
    path("asynchronous", asynchronous),
]


@pytest.fixture(autouse=True)
def _these_urls(transactional_db: None) -> Iterator[None]:
    closed.clear()
    with override_settings(ROOT_URLCONF=__name__, SSESYNC_BROKER="memory://", MIDDLEWARE=[]):
        yield


async def _read(response: Any, count: int) -> list[Event]:
    decoder, events = Decoder(), list[Event]()
    chunks = aiter(response)
    while len(events) < count and (chunk := await anext(chunks, None)) is not None:
        events += decoder.feed(chunk)
    await chunks.aclose()
    return events


async def _get(url: str, count: int = 99, then: Callable[[], object] = lambda: None, **headers: str) -> Any:
    """The answer, and its events where it is a stream."""
    response = await AsyncClient(raise_request_exception=False).get(url, headers=headers)
    then()
    return response, await _read(response, count) if response.streaming else []


get = async_to_sync(_get)


def test_a_stream_made_in_an_asynchronous_view_is_as_any_other() -> None:
    response, events = get("/stream")
    assert response.status_code == 200
    assert [event.data for event in events] == ["a", "b"]
    assert (response["Content-Type"], response["Content-Encoding"]) == ("text/event-stream; charset=utf-8", "identity")
    assert (response["X-A"], response["Vary"], response.cookies["seen"].value) == ("2", "Accept-Language", "yes")
    [(reason, thread)] = closed
    assert (reason, thread != LOOP[-1]) == ("done", True)


@pytest.mark.parametrize(("what", "status"), [("missing", 404), ("denied", 403), ("failed", 500)])
def test_what_is_raised_before_the_first_event_has_its_status(what: str, status: int) -> None:
    assert get(f"/raises/{what}")[0].status_code == status


def test_other_answers_than_a_stream_have_their_status_and_headers() -> None:
    response, _ = get("/finished")
    assert (response.status_code, response.has_header("Content-Type")) == (204, False)
    refused, _ = get("/same_origin", origin="https://other.example")
    assert (refused.status_code, refused.has_header("Content-Encoding")) == (403, False)
    assert refused["Vary"] == "Accept-Language, Origin"
    allowed, events = get("/same_origin", origin="https://app.example")
    assert allowed["Access-Control-Allow-Origin"] == "https://app.example"
    assert len(events) == 2


def test_subscribing_in_an_asynchronous_view_may_use_the_database() -> None:
    response, events = get("/room", 2, lambda: publish("room", "x"))
    assert response.status_code == 200
    assert [event.data for event in events] == ["users: 0", "x"]
    assert get("/room?no=1")[0].status_code == 403


def test_the_end_of_a_client_that_leaves_is_not_the_event_loops_business() -> None:
    ends = threading.Event()

    async def leave() -> int:
        response = await AsyncClient().get("/room")
        await _read(response, 1)
        return threading.get_ident()

    loop = async_to_sync(leave)()
    for _ in range(500):
        if closed:
            break
        ends.wait(0.02)
    [(reason, thread)] = closed
    assert reason == "client_gone"
    assert thread not in (loop, LOOP[-1])


def test_a_channel_view_may_be_asynchronous() -> None:
    _, events = get("/class", 1, lambda: publish("room", "x"))
    assert [event.data for event in events] == ["x"]


def test_what_is_put_round_the_stream_before_it_is_opened_sees_all_of_it() -> None:
    response, events = get("/wrapped", 1, lambda: publish("room", "x"))
    assert [event.data for event in events] == ["y"]
    assert response["X-Rendered"] == "yes"


def test_an_asynchronous_body_in_place_of_the_stream_is_sent() -> None:
    _, events = get("/asynchronous")
    assert [event.data for event in events] == ["instead"]


def test_under_wsgi_an_asynchronous_view_is_served_by_the_servers_thread(client: Client) -> None:
    response = client.get("/stream")
    assert [event.data for event in Decoder().feed(b"".join(response))] == ["a", "b"]
    assert Client(raise_request_exception=False).get("/raises/missing").status_code == 404
    room = client.get("/room")
    chunks = iter(room)
    assert next(chunks) == b":ok\n"
    assert next(chunks) == b"data: users: 0\n\n"
    room.close()
    assert [reason for reason, _ in closed] == ["done", "client_gone"]


def test_a_response_that_nobody_renders_is_opened_when_it_is_read() -> None:
    async def call() -> list[Event]:
        return await _read(await stream(AsyncRequestFactory().get("/stream")), 99)

    assert [event.data for event in async_to_sync(call)()] == ["a", "b"]


def test_a_response_that_is_dropped_unopened_leaks_no_resources() -> None:
    async def drop() -> None:
        (await room(AsyncRequestFactory().get("/room"))).close()
        (await stream(AsyncRequestFactory().get("/stream"))).close()

    async_to_sync(drop)()
    assert closed == []


def test_ticket_required_refuses_an_asynchronous_view() -> None:
    with pytest.raises(TypeError, match="use def instead of async def"):
        ticket_required(stream)
