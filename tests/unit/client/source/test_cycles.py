"""Streams that are opened, read for one event and left, a thousand times over a pool of two connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest
import requests
from requests.adapters import HTTPAdapter

from ssesync import EventSource
from ssesync.testing import Answer, FakeSSEServer

from .following import GEVENT, connecting_threads, wait_for

CYCLES = 100 if GEVENT else 1000


@pytest.fixture
def pool() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(pool_maxsize=2, pool_block=True))
        yield session


def descriptors() -> int:
    return psutil.Process().num_fds()


def states(port: int) -> set[str]:
    """Of this process's connections by a port; other tests may have left some that wait for the garbage collector."""
    found = psutil.Process().net_connections("tcp")
    return {each.status for each in found if port in [end.port for end in (each.laddr, each.raddr) if end]}


def leave(source: EventSource) -> None:
    for event in source:
        assert event.data == "one"
        break


def fail(source: EventSource) -> None:
    with pytest.raises(ZeroDivisionError):
        source.for_each(lambda _: 1 // 0)


def close(source: EventSource) -> None:
    assert source.read() is not None
    source.close()


def test_opening_reading_one_and_leaving_a_thousand_times_leaves_nothing(
    pool: requests.Session, serve: Callable[..., FakeSSEServer]
) -> None:
    # Half of them would go on in silence, half are whole already.
    server = serve(lambda request: Answer().event("one").stall() if request.target == "/0" else Answer().event("one"))
    before = descriptors()
    ways = (leave, fail, close)
    for number in range(CYCLES):
        ways[number % 3](EventSource(f"{server.url}{number % 2}", session=pool))
    # The server's threads may be about to close theirs, and two connections may wait in the pool.
    wait_for(lambda: descriptors() <= before + 6)
    wait_for(lambda: not connecting_threads())
    assert len(server.requests) == CYCLES
    # The server's ends are in that state too, until its threads come to close them.
    wait_for(lambda: "CLOSE_WAIT" not in states(server.port))


def test_sessions_of_our_own_leave_nothing_either(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(lambda request: Answer().event("one").stall())
    before = descriptors()
    for number in range(60):
        (leave, fail, close)[number % 3](EventSource(server.url))
    wait_for(lambda: descriptors() <= before + 4)
    wait_for(lambda: not connecting_threads())


@pytest.mark.parametrize("status", [404, 204, 302])
def test_nor_do_answers_that_are_no_stream(
    status: int, pool: requests.Session, serve: Callable[..., FakeSSEServer]
) -> None:
    server = serve(lambda _: Answer(status, body=b"" if status == 204 else b"x" * 100_000, headers={"X-A": "b"}))
    kept = []  # as a program does that collects its errors
    for _ in range(30):
        source = EventSource(server.url, session=pool)
        try:
            assert source.read() is None
        except Exception as error:
            kept.append(error)
    assert len(kept) == (0 if status == 204 else 30)
    # The pool has its two places again.
    for _ in range(3):
        with pool.get(server.url, stream=True, timeout=90):
            pass
