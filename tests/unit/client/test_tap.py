"""Taps: whose connections can be taken from urllib3, and what is received by them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from ssesync.client.body import Body
from ssesync.client.relay import Relay
from ssesync.client.tap import can_tap, has_ended, tap_of
from ssesync.producing import Tap
from ssesync.receiving import make_receive, plain_receive
from ssesync.testing import CHUNKED, FIN, HOLD, LAST_CHUNK, FakeSSEServer, chunk, head
from ssesync.wire.body import ClosedBody, SizedBody

from ...cases import each_case
from .raw_server import TIMEOUT, gzip_pieces

EVENT = b"data: x\n\n"


def ask(server: FakeSSEServer, **options: Any) -> requests.Response:
    return requests.get(server.url, stream=True, timeout=(TIMEOUT, options.pop("read", None)), **options)


def taken(response: requests.Response) -> Tap:
    body = Body(response)
    return tap_of(response, os.dup, body.release_connection)


def read(tap: Tap) -> bytes:
    """All of a body, waiting as the reactor does not."""
    data, deadline = tap.held, time.monotonic() + TIMEOUT
    pieces = []
    while True:
        if data:
            pieces += tap.body.decode(data)
        if tap.body.done or tap.body.error is not None:
            break
        received = tap.receive()
        if received == b"":
            assert tap.body.end() is None
            break
        data = received or b""
        if received is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    tap.close()
    tap.close()
    return b"".join(pieces)


WAYS: dict[str, list[Any]] = {
    "chunks": [head(CHUNKED), chunk(EVENT), chunk(EVENT), LAST_CHUNK],
    "chunks, one of them in the head's packet": [head(CHUNKED) + chunk(EVENT), chunk(EVENT), LAST_CHUNK],
    "Content-Length": [head(f"Content-Length: {2 * len(EVENT)}"), EVENT, EVENT],
    "to the connection's end": [head("Connection: close"), EVENT * 2, FIN],
    "HTTP/1.0": [head(version="1.0"), EVENT * 2, FIN],
    "behind an interim response": [head(status="102 Processing", content_type=None), head(CHUNKED) + chunk(EVENT * 2)
                                   + b"0\r\nX-Trailer: 1\r\n\r\n"],
}  # fmt: skip


@each_case("way", WAYS)
def test_a_body_is_received_to_its_end(way: str) -> None:
    with FakeSSEServer(WAYS[way]) as server:
        response = ask(server)
        relay = Relay(response)
        assert relay.can_tap
        assert read(relay.tap(os.dup)) == 2 * EVENT
        assert not relay.can_tap or response.raw.closed


def test_the_response_s_own_close_and_the_relay_s_touch_nothing() -> None:
    with FakeSSEServer([head(CHUNKED), chunk(EVENT), HOLD]) as server:
        response = ask(server, read=7)
        relay = Relay(response)
        tap = relay.tap(os.dup)
        assert tap.idle_timeout == 7
        relay.close()
        response.close()
        del response, relay
        received = tap.held
        while not received:
            received = tap.receive() or b""
        assert received == chunk(EVENT)
        assert tap.receive() is None
        assert not server.client_left.acquire(blocking=False)
        tap.close()
        server.wait_for_client_left()


def test_without_a_descriptor_nothing_has_happened() -> None:
    def full(fd: int) -> int:
        raise OSError("there are no more descriptors")

    with FakeSSEServer(WAYS["chunks"]) as server:
        relay = Relay(ask(server))
        with pytest.raises(OSError, match="no more"):
            relay.tap(full)
        assert relay.can_tap
        assert b"".join(relay._body) == 2 * EVENT


def changed(change: Callable[[Any], object]) -> Callable[[requests.Response], Any]:
    def make(response: requests.Response) -> Any:
        change(response)
        return response

    return make


class Other(requests.Response):
    pass


def subclassed(response: requests.Response) -> Any:
    response.__class__ = Other
    return response


@each_case(
    "change",
    [
        subclassed,
        lambda response: iter([EVENT]),
        lambda response: response.raw,
        changed(lambda response: response.raw.read(1)),
        changed(lambda response: next(response.raw.stream(1))),
        changed(lambda response: response.content),
        changed(lambda response: setattr(response.raw, "_fp", object())),
        changed(lambda response: setattr(response.raw._fp.fp.raw, "_sock", object())),
    ],
)
def test_anything_else_is_left_alone(change: Callable[[Any], Any]) -> None:
    with FakeSSEServer(WAYS["chunks"]) as server:
        response = ask(server)
        sock = response.raw._fp.fp.raw._sock
        assert can_tap(response)
        assert not can_tap(change(response))
        with contextlib.suppress(AttributeError):  # some are no responses any more
            response.close()
        sock._io_refs = 0
        sock.close()


@each_case(
    "script",
    [
        [head(CHUNKED, "Content-Encoding: gzip"), *(chunk(piece) for piece in gzip_pieces([EVENT])), LAST_CHUNK],
        [head("Content-Length: 0")],
        [head("Transfer-Encoding: identity, chunked"), chunk(EVENT), LAST_CHUNK, FIN],
    ],
)
def test_a_coding_and_an_empty_body_are_left_to_urllib3(script: list[bytes]) -> None:
    with FakeSSEServer(script) as server, ask(server) as response:
        assert not can_tap(response)


def test_an_end_shows_before_anything_is_read() -> None:
    with FakeSSEServer([head(CHUNKED), HOLD]) as server, ask(server) as response:
        assert not has_ended(response, 0)
        assert not has_ended(response, 0.05)
    with FakeSSEServer([head(CHUNKED) + chunk(EVENT), HOLD]) as server, ask(server) as response:
        began = time.monotonic()
        assert not has_ended(response, TIMEOUT)  # there is something to begin with
        assert time.monotonic() - began < TIMEOUT / 2
    with FakeSSEServer([head(CHUNKED), chunk(EVENT), FIN]) as server, ask(server) as response:
        deadline = time.monotonic() + TIMEOUT
        while not has_ended(response, 0.05):
            assert time.monotonic() < deadline


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        yield one, other


@pytest.mark.parametrize("receive", [make_receive(), plain_receive])
def test_receiving_never_waits(
    receive: Callable[[int], bytes | int], pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    assert receive(one.fileno()) == -11
    other.sendall(b"x" * 70_000)
    assert receive(one.fileno()) == b"x" * 65_536
    assert receive(one.fileno()) == b"x" * (70_000 - 65_536)
    other.close()
    assert receive(one.fileno()) == b""
    assert receive(-1) == -9


def test_bodies_know_their_ends() -> None:
    sized = SizedBody(5)
    assert sized.decode(b"abc") == [b"abc"]
    assert sized.end() is not None
    assert sized.decode(b"defg") == [b"de"]
    assert (sized.done, sized.end()) == (True, None)
    closed = ClosedBody()
    assert closed.decode(b"abc") == [b"abc"]
    assert not closed.done
    assert closed.end() is None
    assert closed.done
