"""A connection whose body was read to its end serves the next request; every other one is closed, and none leaks."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from collections.abc import Callable, Iterator

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from ssesync import Reader
from ssesync.client.body import Body
from ssesync.testing import CHUNKED, HOLD, LAST_CHUNK, FakeSSEServer, RecordedRequest, chunk, chunked, head

from .conftest import Tls
from .raw_server import FRAMINGS, TIMEOUT, Steps

EVENT = b"data: x\n\n"
# Framings that tell where the body ends, so that the connection may be kept.
KEEPS = [
    "one chunk each",
    "many chunks each",
    "one chunk that trickles",
    "Content-Length",
    "gzip, chunked",
    "gzip, Content-Length",
]


def whole(framing: str) -> list[object]:
    start, sent, end = FRAMINGS[framing]([EVENT] * 3)
    return [start + b"".join(part for parts in sent for part in parts), *end]


def endless(_: RecordedRequest) -> Steps:
    yield head(CHUNKED) + chunk(EVENT)
    yield HOLD


@pytest.mark.parametrize("framing", KEEPS)
def test_a_body_read_to_its_end_leaves_the_connection_to_the_next_request(
    framing: str, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(whole(framing))
    for _ in range(3):
        assert len(list(Reader(get(server)))) == 3
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_framing_can_be_read_again_and_again_in_one_session(
    framing: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve(whole(framing))
    for _ in range(3):
        assert len(list(Reader(get(server)))) == 3
    assert server.connections == (1 if framing in KEEPS else 3)


def test_trailers_are_read_before_the_connection_is_used_again(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(EVENT), b"0\r\nX: ", b"y\r\n", b"\r\n"])
    for _ in range(3):
        assert len(list(Reader(get(server)))) == 1
    assert server.connections == 1


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n", b"x"])
def test_bytes_after_the_end_prevent_that_the_connection_is_used_again(
    extra: bytes, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED) + chunked(EVENT) + extra])
    for _ in range(3):
        assert len(list(Reader(get(server)))) == 1
    assert server.connections == 3


def test_leaving_the_loop_closes_the_connection(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve_both(endless)
    for _ in range(3):
        for _ in Reader(get(server)):
            break
        assert server.client_left.acquire(timeout=TIMEOUT)
    assert server.connections == 3


def test_an_error_in_the_loop_closes_the_connection_while_the_error_is_still_held(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve(endless)

    def fail() -> None:
        for _ in Reader(get(server)):
            raise KeyError

    with pytest.raises(KeyError) as caught:
        fail()
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert caught.value.__traceback__ is not None


def test_an_error_in_for_each_closes_the_connection_at_once(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve(endless)

    def fail(_: object) -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        Reader(get(server)).for_each(fail)
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert caught.value.__traceback__ is not None


@pytest.fixture
def blocking_session(tls: Tls) -> Iterator[requests.Session]:
    """Two connections at most, and a request that finds none free waits for one."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = tls.ca
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=2, pool_block=True))
        yield session


def descriptors() -> set[tuple[str, int]]:
    """The sockets that are open: all that a connection takes. A thread of another test may open a file."""
    gc.collect()
    found = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # closed since the listing, as the listing's own is
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.add((name, status.st_ino))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["break", "close", "cancel", "read to the end"])
def test_hundreds_of_streams_left_early_block_no_pool_and_leave_no_descriptor(
    leave: str, blocking_session: requests.Session
) -> None:
    def script(_: RecordedRequest) -> Steps:
        yield head(CHUNKED) + chunk(EVENT)
        yield LAST_CHUNK if leave == "read to the end" else HOLD

    before = descriptors()
    with FakeSSEServer(script) as server:
        for _ in range(300):
            reader = Reader(blocking_session.get(server.url, stream=True, timeout=90))
            for _ in reader:
                if leave == "break":
                    break
                if leave == "close":
                    reader.close()
                elif leave == "cancel":
                    reader.cancel()
        assert len(server.requests) == 300
        assert server.connections == (1 if leave == "read to the end" else 300)
    del reader  # a response keeps its pool, and the pool the connection that was read to its end
    blocking_session.close()
    assert descriptors() <= before


@pytest.mark.slow
def test_https_streams_left_early_leave_no_descriptor(blocking_session: requests.Session, tls: Tls) -> None:
    before = descriptors()
    with FakeSSEServer(endless, tls=tls.context) as server:
        for _ in range(20):
            for _ in Reader(blocking_session.get(server.url, stream=True, timeout=90)):
                break
        assert server.connections == 20
    blocking_session.close()
    assert descriptors() <= before


@pytest.mark.slow
def test_refused_answers_leave_no_descriptor_and_their_connection_is_used_again(
    blocking_session: requests.Session,
) -> None:
    before = descriptors()
    with FakeSSEServer([head("Content-Length: 4", status="503 Busy"), b"busy"]) as server:
        for _ in range(20):
            with pytest.raises(Exception, match="503"):
                Reader(blocking_session.get(server.url, stream=True, timeout=90))
        assert server.connections == 1
    blocking_session.close()
    assert descriptors() <= before


def test_a_cancel_that_meets_the_end_does_not_cut_the_connection_that_goes_back_to_its_pool(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = urllib3.HTTPConnectionPool._put_conn
    bodies: list[Body] = []

    def put_and_cancel(pool: urllib3.HTTPConnectionPool, connection: object) -> None:
        put(pool, connection)  # type: ignore[arg-type]
        for body in bodies:
            body.cancel()  # another thread's, at the worst moment

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "_put_conn", put_and_cancel)
    for framing in KEEPS:
        bodies.clear()
        server = serve(whole(framing))
        for _ in range(3):
            body = Body(get(server))
            bodies.append(body)
            list(body)
        assert server.connections == 1, framing


def test_a_cancel_after_the_end_does_not_cut_the_request_that_uses_the_connection_now(
    serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    for framing in KEEPS:
        server = serve_both(whole(framing))
        first = Reader(get(server))
        assert len(list(first)) == 3
        second = Reader(get(server))
        assert second.read() is not None
        first.cancel()
        first.close()
        assert not first.cancelled
        assert len(list(second)) == 2
        assert server.connections == 1


@pytest.mark.slow
def test_a_urllib3_response_left_early_gives_its_place_in_the_pool_back() -> None:
    before = descriptors()
    with FakeSSEServer(endless) as server, urllib3.PoolManager(maxsize=2, block=True) as pool:
        for _ in range(10):
            for _ in Reader(pool.request("GET", server.url, preload_content=False, pool_timeout=TIMEOUT)):
                break
        assert server.connections == 10
    assert descriptors() <= before
