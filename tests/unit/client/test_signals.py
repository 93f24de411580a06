"""Closing where a signal handler may be: inside of what the very thread that closes is in the middle of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests

from ssesync import EventSource, Reader
from ssesync.testing import Answer, FakeSSEServer

TIMEOUT = 90


def returns(call: Callable[[], object]) -> bool:
    """Whether a call comes back. It is made on another thread, so that a test fails where it does not."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return not thread.is_alive()


def pool_of(response: requests.Response) -> Any:
    return response.raw._pool.pool


@pytest.mark.slow
def test_a_reader_is_closed_while_the_interrupted_thread_holds_its_pools_lock() -> None:
    with FakeSSEServer(Answer().event("one").stall()) as server, requests.Session() as session:
        reader = Reader(session.get(server.url, stream=True))
        pool = pool_of(reader.response)
        assert reader.read() is not None

        def interrupted() -> None:
            with pool.mutex:
                reader.close()

        assert returns(interrupted)
        server.wait_for_client_left()
        # Its place in the pool is given back as soon as that can be.
        for _ in range(500):
            if pool.queue and all(pool.queue):
                break
            threading.Event().wait(0.01)
        assert all(connection is None for connection in pool.queue) or pool.qsize() > 0


def test_a_source_that_is_closed_from_within_gives_its_session_up_as_it_ends() -> None:
    with FakeSSEServer(Answer().event("one").stall()) as server:
        closed: list[bool] = []

        def on_open(response: requests.Response) -> None:
            with pool_of(response).mutex:
                source.close()
            closed.append(source._following._resources.released)

        source = EventSource(server.url, on_open=on_open)
        assert returns(lambda: list(source))
        assert closed == [False]
        assert source._following._resources.released
        server.wait_for_client_left()


@pytest.mark.parametrize("kind", ["close", "cancel"])
def test_a_reader_is_ended_from_within_its_own_read(kind: str) -> None:
    """An iterable of bytes, say, as any code that runs inside of a read, a signal handler too."""

    def source() -> Any:
        yield b"data: one\n\n"
        getattr(reader, kind)()
        yield b"data: two\n\n"

    reader = Reader(source())
    assert [event.data for event in reader] == ["one"]
    assert reader.cancelled
