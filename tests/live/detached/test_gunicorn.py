"""What is gunicorn's own: workers that end, TLS, HTTP/2."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.servers import GTHREAD, HOOKS, SYNC

from .kinds import KINDS, Kind, Server, gunicorn
from .strict import RETRY

SILENT = {"keep_alive": 60}
HOOKED = [
    Kind("hooked gthread, preloaded", gunicorn(*GTHREAD, "--preload", config=HOOKS)),
    Kind("hooked sync", gunicorn(*SYNC, config=HOOKS), concurrent=False),
]


@pytest.mark.parametrize("kind", HOOKED, ids=lambda kind: kind.name)
def test_with_its_hooks_a_worker_that_stops_ends_all_streams_in_order(start: Callable[[Kind], Server], kind: Kind):
    server = start(kind)
    with contextlib.ExitStack() as stack:
        tiers = ["detached", "served"] if kind.concurrent else ["detached"]
        streams = []
        for number in range(6):
            options = SILENT | {"detach": tiers[number % len(tiers)] == "detached"}
            streams.append(stack.enter_context(server.subscribe("flask", channel="all", options=options)))
        for stream in streams:
            stream.opens()
        assert sorted({stream["tier"] for stream in server.state()["streams"]}) == tiers
        [event_id] = server.publish("flask", "all", "last")
        server.signal(signal.SIGTERM)
        for stream in streams:
            stream.answer.expect(f"id: {event_id}\ndata: last\n\n".encode())
            stream.answer.end(RETRY)
        assert server.leaves()
    assert "Traceback" not in server.log()


def test_a_preloaded_application_that_used_its_broker_detaches_in_the_worker(use: Callable[[str], Server]):
    server = use("gthread_preload")
    assert "Booting worker" in server.log()
    with server.subscribe("flask", channel="early", options=SILENT) as stream:
        stream.opens().delivers("late")
        assert stream.described()["tier"] == "detached"
        assert server.state()["threads"].count("ssesync-reactor") == 1


def test_over_tls_streams_take_threads_and_no_more_than_there_are(use: Callable[[str], Server]):
    server = use("gthread_tls")
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(server.subscribe("flask", options=SILENT).opens()) for _ in range(3)]
        with server.subscribe("flask", options=SILENT) as another:
            assert another.answer.status == 503
        for stream in streams:
            stream.delivers("first", "x" * 100_000)
        server.ping()


def test_on_http_2_streams_are_served_and_lose_nothing(start: Callable[[Kind], Server]):
    h2 = pytest.importorskip("h2.connection", reason="gunicorn serves HTTP/2 where h2 is installed")
    config = pytest.importorskip("gunicorn.config")
    if "http2_cleartext" not in config.make_settings():
        pytest.skip("this gunicorn has no HTTP/2 without TLS")
    events = pytest.importorskip("h2.events")
    command = gunicorn(*GTHREAD, "--http-protocols", "h2,h1", "--http2-cleartext", "both")
    server = start(replace(KINDS["gthread"], name="http2", command=command))
    with server.wire() as wire:
        connection = h2.H2Connection()
        connection.initiate_connection()
        # One to a connection: gunicorn answers a second request when the first is done with.
        headers = {":method": "GET", ":path": "/flask/events/one", ":scheme": "http", ":authority": "localhost"}
        connection.send_headers(connection.get_next_available_stream_id(), list(headers.items()), end_stream=True)
        body = bytearray()
        ended = threading.Event()

        def expect(data: bytes, end: bool = False) -> None:
            while len(body) < len(data) or (end and not ended.is_set()):
                wire.send(connection.data_to_send())
                assert wire.more()
                for happened in connection.receive_data(wire.waiting()):
                    assert not isinstance(happened, (events.ConnectionTerminated, events.StreamReset)), happened
                    if isinstance(happened, events.DataReceived):
                        body.extend(happened.data)
                    if isinstance(happened, events.StreamEnded):
                        ended.set()
            assert body == data
            body.clear()

        expect(b":ok\n")
        [stream] = server.state()["streams"]
        assert stream["tier"] == "served"
        for data in ("first", "x" * 10_000):
            [event_id] = server.publish("flask", "one", data)
            expect(f"id: {event_id}\ndata: {data}\n\n".encode())
        assert not ended.is_set()
        server.ask("revoke", place="flask", key="one")
        expect(b"", end=True)
    server.settle()
