"""What a Reader reads from: responses of every kind, and anything that gives bytes."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from ssesync import Event, Reader, StatusError
from ssesync.testing import CHUNKED, HOLD, FakeSSEServer, chunk, chunked, head
from ssesync.wire import encode

from ...cases import each_case
from .raw_server import FRAMINGS, TIMEOUT

STREAM = b"id: 1\ndata: a\n\n: comment\n\ndata: b\n\n"
EVENTS = [Event("a", type="message", id="1"), Event("b", type="message", id="1")]


def pieces() -> Iterator[bytes]:
    for at in range(len(STREAM)):
        yield STREAM[at : at + 1]
        yield b""  # not the end


@each_case(
    "source",
    [
        lambda: [STREAM],
        lambda: (STREAM[:10], STREAM[10:]),
        pieces,
        lambda: iter([STREAM]),
        lambda: io.BytesIO(STREAM),
        lambda: map(encode, EVENTS),
        lambda: [bytearray(STREAM)],
    ],
    ids=["list", "tuple", "generator", "iterator", "file object", "map", "bytearray"],
)
def test_any_iterable_of_bytes_is_read(source: Callable[[], Any]) -> None:
    reader = Reader(source())
    assert reader.response is None
    assert list(reader) == EVENTS


def test_nothing_is_a_stream_without_events() -> None:
    assert list(Reader([])) == []
    assert Reader([b""]).read() is None


def test_a_file_is_read_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(STREAM)
    file = path.open("rb")
    assert list(Reader(file)) == EVENTS
    assert file.closed


def test_a_socket_s_file_is_read_as_it_arrives() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as file:
        reader = Reader(file)
        for event in (Event("a", type="message"), Event("b", type="message")):
            theirs.sendall(encode(event))
            assert reader.read() == event


def test_a_generator_is_closed_when_the_loop_is_left() -> None:
    closed: list[bool] = []

    def source() -> Iterator[bytes]:
        try:
            while True:
                yield STREAM
        finally:
            closed.append(True)

    for _ in Reader(source()):
        break
    assert closed == [True]


def test_what_an_iterable_raises_goes_on_after_the_events_before_it() -> None:
    def source() -> Iterator[bytes]:
        yield STREAM
        raise KeyError("mine")

    reader = Reader(source())
    assert [reader.read(), reader.read()] == EVENTS
    with pytest.raises(KeyError, match="mine"):
        reader.read()
    assert reader.read() is None


@each_case("framing", FRAMINGS)
def test_a_urllib3_response_is_read(framing: str, serve: Callable[..., FakeSSEServer]) -> None:
    start, sent, end = FRAMINGS[framing]([STREAM])
    server = serve([start, *sent[0], *end])
    with urllib3.PoolManager() as pool:
        for _ in range(2):
            response = pool.request("GET", server.url, preload_content=False)
            reader = Reader(response)
            assert reader.response is response
            assert list(reader) == EVENTS


def test_closing_a_urllib3_response_is_enough_to_end_the_connection(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve([head(CHUNKED), chunk(STREAM), HOLD])
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", server.url, preload_content=False)
        reader = Reader(response)
        assert reader.read() == EVENTS[0]
        response.close()
        assert server.client_left.acquire(timeout=TIMEOUT)


def test_a_urllib3_response_is_checked(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve([head("Content-Length: 2", status="404 Not Found"), b"no"])
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", server.url, preload_content=False)
        with pytest.raises(StatusError) as caught:
            Reader(response)
    assert (caught.value.response, caught.value.body) == (response, b"no")


@each_case("framing", FRAMINGS)
def test_a_urllib3_response_that_was_read_already_is_read_from_memory(
    framing: str, serve: Callable[..., FakeSSEServer]
) -> None:
    start, sent, end = FRAMINGS[framing]([STREAM])
    server = serve([start, *sent[0], *end])
    with urllib3.PoolManager() as pool:
        assert list(Reader(pool.request("GET", server.url))) == EVENTS


@each_case("framing", FRAMINGS)
def test_a_requests_response_that_was_read_already_is_read_from_memory(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    start, sent, end = FRAMINGS[framing]([STREAM])
    server = serve([start, *sent[0], *end])
    response = get(server, stream=False)
    assert list(Reader(response)) == EVENTS
    assert list(Reader(response)) == EVENTS
    streamed = get(server)
    assert streamed.content == STREAM
    assert list(Reader(streamed)) == EVENTS


def mocked(raw: Any, status: int = 200, content_type: str = "text/event-stream") -> requests.Response:
    """A response as tests make them by hand."""
    response = requests.Response()
    response.status_code = status
    response.headers["Content-Type"] = content_type
    response.raw = raw
    return response


def test_a_response_made_by_hand_over_a_file_is_read() -> None:
    response = mocked(io.BytesIO(STREAM))
    reader = Reader(response)
    assert reader.response is response
    assert list(reader) == EVENTS


def test_a_response_made_by_hand_is_checked() -> None:
    with pytest.raises(StatusError) as caught:
        Reader(mocked(io.BytesIO(b"no"), status=500))
    assert caught.value.body == b"no"


def test_a_response_made_by_hand_with_its_content_is_read() -> None:
    response = mocked(None)
    response._content = STREAM
    response._content_consumed = True  # type: ignore[attr-defined]
    assert list(Reader(response)) == EVENTS


@each_case("headers", [{}, {"Transfer-Encoding": "chunked"}, {"Content-Length": str(len(STREAM))}])
@each_case("make", [lambda raw: raw, mocked])
def test_a_urllib3_response_made_by_hand_is_read(make: Callable[[Any], Any], headers: dict[str, str]) -> None:
    raw = urllib3.HTTPResponse(
        body=io.BytesIO(STREAM),
        headers={"Content-Type": "text/event-stream", **headers},
        status=200,
        preload_content=False,
    )
    assert list(Reader(make(raw))) == EVENTS


def test_a_response_whose_body_was_begun_elsewhere_is_read_from_where_that_stopped(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunked(b"12", b"3data: a\n\n", b"data: b\n\n")])
    for read in (lambda raw: raw.read(3), lambda raw: raw.read1(2) + raw.read1(1)):
        response = get(server)
        assert read(response.raw) == b"123"
        assert [event.data for event in Reader(response)] == ["a", "b"]
