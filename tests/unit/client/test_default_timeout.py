"""``socket.setdefaulttimeout`` makes every new socket object non-blocking below, a duplicate's original with it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from ssesync import Backoff, EventSource, Reader
from ssesync.testing import FakeSSEServer

from .background import Reading
from .raw_server import CHUNKED, LAST_CHUNK, chunk, head


@pytest.fixture(autouse=True)
def default_timeout() -> Iterator[None]:
    socket.setdefaulttimeout(30)
    yield
    socket.setdefaulttimeout(None)


def answer(go_on: threading.Event) -> list[object]:
    return [head(CHUNKED), chunk(b"data: 1\n\n"), go_on, chunk(b"data: 2\n\n"), LAST_CHUNK]


def test_a_reader_waits_for_a_silent_server_all_the_same(serve_both: Callable[..., FakeSSEServer], tls: object) -> None:
    go_on = threading.Event()
    server = serve_both(answer(go_on))
    with requests.get(server.url, stream=True, verify=tls.ca) as response:  # type: ignore[attr-defined]
        reading = Reading(Reader(response)).wait_for_next(1)
        go_on.set()
        assert [event.data for event in reading.result()] == ["1", "2"]


def test_an_event_source_does_too(serve_both: Callable[..., FakeSSEServer], tls: object) -> None:
    go_on = threading.Event()
    server = serve_both(answer(go_on))
    source = EventSource(
        server.url,
        verify=tls.ca,
        connect_timeout=None,
        idle_timeout=None,
        until="2",
        backoff=Backoff(max_attempts=0),  # type: ignore[attr-defined]
    )
    reading = Reading(source).wait_for_next(1)
    go_on.set()
    assert [event.data for event in reading.result()] == ["1"]
