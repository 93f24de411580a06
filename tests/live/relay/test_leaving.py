"""The client's leaving, a stop, a cancel: the upstream's connection is shut at once, and nothing is left of it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from ssesync import EventStream, Reader, Relay, Writer, relay_request, streams
from ssesync.server.source import BlockingPull
from ssesync.testing import CHUNKED, HOLD, FakeSSEServer, chunk, head
from tests.unit.client.raw_server import TIMEOUT, framings

Ask = Callable[..., Any]
Upstream = Callable[..., FakeSSEServer]
Gateway = Callable[..., str]
EVENT = b"data: x\n\n"
SILENT = [head(CHUNKED), chunk(EVENT), HOLD]


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def until_first_event(url: str) -> requests.Response:
    response = requests.get(url, stream=True, timeout=TIMEOUT)
    reader = Reader(response)
    assert reader.read() is not None
    return reader.response  # type: ignore[no-any-return]


@pytest.mark.parametrize("framing", framings())
def test_the_client_s_leaving_shuts_a_silent_upstream(
    framing: str, skin: str, upstream: Upstream, session: requests.Session, gateway: Gateway
) -> None:
    begin, sent, _ = framings()[framing]([EVENT, EVENT])
    server = upstream([begin, *sent[0], HOLD])
    reasons: list[str] = []
    url = gateway(
        lambda request: Relay(relay_request(request, server.url, session=session, timeout=(10, None))),
        skin,
        keep_alive=None,
        on_close=lambda reason, _: reasons.append(reason),
    )
    until_first_event(url).close()
    assert server.client_left.acquire(timeout=TIMEOUT)
    wait_until(lambda: reasons)
    assert reasons == ["client_gone"]


@pytest.mark.parametrize("transform", [None, lambda event: event], ids=["bytes", "transform"])
def test_a_client_that_does_not_read_holds_the_upstream_back_and_its_leaving_ends_it(
    transform: Any, upstream: Upstream, ask: Ask
) -> None:
    written = 0

    def flood(_: object) -> Iterator[Any]:
        nonlocal written
        yield head(CHUNKED)
        while True:
            yield chunk(b"data: " + b"x" * 65_000 + b"\n\n")
            written += 1

    server = upstream(flood)
    stream = EventStream(Relay(ask(server), transform=transform))
    stream.open()
    next(stream)

    def stands_still() -> bool:
        before = written
        time.sleep(0.2)
        return written == before > 0

    wait_until(stands_still)
    assert written < 200  # 13 MB, most of it in the kernel
    stream.close()
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.parametrize("end", ["cancel", "stop", "close"])
def test_whatever_ends_the_stream_shuts_the_upstream(end: str, upstream: Upstream, ask: Ask) -> None:
    server = upstream(SILENT)
    stream = EventStream(Relay(ask(server)))
    stream.open()
    next(stream)
    assert next(stream) == EVENT
    getattr(stream, end)()
    rest = b"".join(stream)
    assert rest.startswith(b"event: error\n") if end != "close" else rest == b""
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_the_relay_itself_can_be_closed_from_any_thread_and_often(upstream: Upstream, ask: Ask) -> None:
    server = upstream(SILENT)
    relay = Relay(ask(server))
    writer = Writer()
    thread = threading.Thread(target=relay.produce, args=(writer,))
    thread.start()
    assert BlockingPull(writer.as_source()).pull(2**20, TIMEOUT) == EVENT
    for _ in range(3):
        relay.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert not server.client_left.acquire(blocking=False)


def test_a_relay_to_a_stream_that_is_over_reads_nothing(upstream: Upstream, ask: Ask) -> None:
    server = upstream(SILENT)
    writer = Writer()
    writer.cancel("client_gone")
    Relay(ask(server)).produce(writer)
    assert writer.events == 0
    assert server.client_left.acquire(timeout=TIMEOUT)


@pytest.mark.timeout(900)
def test_200_clients_that_open_and_leave_leave_no_connection_thread_or_descriptor(
    skin: str, upstream: Upstream, gateway: Gateway
) -> None:
    server = upstream(SILENT)
    with requests.Session() as session:
        session.trust_env = False
        # A connection that is not given back would have the third request wait for ever.
        session.mount("http://", HTTPAdapter(pool_maxsize=2, pool_block=True))
        url = gateway(
            lambda request: Relay(relay_request(request, server.url, session=session, timeout=(10, None))),
            skin,
            keep_alive=None,
        )

        def cycle(count: int) -> tuple[int, int]:
            for _ in range(count):
                until_first_event(url).close()
                assert server.client_left.acquire(timeout=TIMEOUT)
            wait_until(lambda: not streams.all())
            wait_until(lambda: not [t for t in threading.enumerate() if t.name in ("ssesync-/", "ssesync-Relay")])
            wait_until(lambda: sum("process_request_thread" in t.name for t in threading.enumerate()) == 0)
            gc.collect()
            return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

        cycle(5)
        before = cycle(1)
        after = cycle(200)
    # What the script's own server keeps of its last connection comes and goes.
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 2
    assert len(server.requests) == 206
