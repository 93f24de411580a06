"""Each event is given before the server sends another byte, whatever the framing of the body."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import requests

from ssesync import Event, Reader
from ssesync.client.body import Body
from ssesync.testing import CHUNKED, HOLD, LAST_CHUNK, FakeSSEServer, RecordedRequest, chunk, head

from ...cases import each_case
from .raw_server import FRAMINGS, Steps

PIECES = [f"id: {number}\ndata: event {number}\ndata: {'ü' * number}\n\n".encode() for number in range(5)]
EVENTS = [Event(f"event {number}\n{'ü' * number}", type="message", id=number) for number in range(5)]


def played(framing: str, pieces: list[bytes], go: threading.Semaphore) -> Callable[[RecordedRequest], Steps]:
    """A script that waits for ``go`` after each piece."""
    start, sent, end = FRAMINGS[framing](pieces)

    def script(_: RecordedRequest) -> Steps:
        yield start
        for parts in sent:
            yield from parts
            yield go
        yield from end
        yield HOLD

    return script


@each_case("framing", FRAMINGS)
def test_each_event_is_given_before_the_server_sends_the_next(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(0)
    server = serve_both(played(framing, PIECES, go))
    reader = Reader(get(server))
    for event in EVENTS:
        assert reader.read() == event
        go.release()
    assert reader.read() is None


@each_case("framing", FRAMINGS)
def test_all_events_of_one_piece_are_given_before_the_server_sends_the_next(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(0)
    server = serve(played(framing, [b"".join(PIECES), b"".join(PIECES)], go))
    reader = Reader(get(server))
    for _ in range(2):
        assert [reader.read() for _ in EVENTS] == EVENTS
        go.release()
    assert reader.read() is None


@each_case("framing", FRAMINGS)
def test_bytes_of_an_unfinished_event_are_given_before_the_server_sends_more(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(0)
    pieces = [b"dat", b"a: ", b"x", b"\r", b"\n\r", b"\n"]
    server = serve(played(framing, pieces, go))
    body = Body(get(server))
    for piece in pieces:
        received = b""
        while len(received) < len(piece):
            received += body.read()
        assert received == piece
        go.release()
    assert body.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
def test_comments_are_given_before_the_server_sends_more(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(0)
    server = serve(played(framing, [b": one\n", b": two\n", b"data: x\n\n"], go))
    comments: list[str] = []

    def on_comment(text: str) -> None:
        comments.append(text)
        go.release()  # the script goes on only because the comment was given

    reader = Reader(get(server), on_comment=on_comment)
    assert reader.read() == Event("x", type="message")
    assert comments == ["one", "two"]
    go.release()
    assert reader.read() is None


@each_case("framing", FRAMINGS)
def test_a_body_far_larger_than_every_buffer_arrives_whole(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(10)
    pieces = [b"data: " + bytes([97 + number]) * 300_000 + b"\n\n" for number in range(3)]
    if framing == "many chunks each":
        pieces = [piece[:9_000] + b"\n\n" for piece in pieces]
    reader = Reader(get(serve_both(played(framing, pieces, go))))
    assert [(event.data or "").encode() for event in reader] == [piece[6:-2] for piece in pieces]


@each_case("framing", FRAMINGS)
def test_the_events_are_the_same_without_the_fast_path(
    framing: str,
    serve_both: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
    without_fast_path: Callable[[requests.Response], requests.Response],
) -> None:
    go = threading.Semaphore(0)
    server = serve_both(played(framing, PIECES, go))
    reader = Reader(without_fast_path(get(server)))
    for event in EVENTS:
        assert reader.read() == event
        go.release()
    assert reader.read() is None


def test_an_event_is_given_while_its_chunk_and_its_line_end_are_still_open(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Event()
    server = serve([head(CHUNKED), b"FFFF\r\ndata: x\r\r", go, b"data: y\n\n", HOLD])
    reader = Reader(get(server))
    assert reader.read() == Event("x", type="message")
    go.set()
    assert reader.read() == Event("y", type="message")
    reader.close()


def test_an_event_is_returned_before_the_next_chunk_line_is_complete(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(0)
    one = chunk(b"data: x\n\n")
    server = serve([head(CHUNKED), one + b"\r"[:0] + b"9", go, one[1:] + b"0\r", go, LAST_CHUNK[2:]])
    reader = Reader(get(server))
    for _ in range(2):
        assert reader.read() == Event("x", type="message")
        go.release()
    assert reader.read() is None
