"""How many streams, how long, and for how long with a client that does not read."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable

import pytest

from ssesync.wire import Decoder
from tests.http_client import Response
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Fleet, Kind, Server, eventually

from .kinds import FIRST, KINDS, OPENING, gunicorn, launch, path

#: So small that the kernel keeps little of what a client does not read.
TINY = 2_304
POOL = Kind("pool", gunicorn("--worker-class", "gthread", "--threads", "4"))
STALLING = {"keep_alive": 60, "max_streams": None, "send_timeout": 1}


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_client_that_never_reads_is_cut_off_and_its_thread_is_back(server: Server, switchboard: Switchboard):
    wire, _ = server.open(path(do="flood", line=switchboard.port, options=STALLING), receive_buffer=TINY)
    with wire:
        switchboard.check_end(switchboard.answer(), "stalled")
        assert server.fetch("/plain") == "plain"


@pytest.mark.parametrize("server", ["gthread", "gthread_tls", "gevent"], indirect=True)
def test_a_client_that_neither_reads_nor_sends_any_more_wakes_the_producer_at_once_and_frees_the_thread_in_time(
    server: Server, switchboard: Switchboard
):
    """Its half-close is seen at once; what the server has begun to send still has send_timeout to go out."""
    wire, _ = server.open(path(do="flood", line=switchboard.port, options=STALLING), receive_buffer=TINY)
    with wire:
        producer = switchboard.answer()
        producer.hear()
        wire.half_close()
        switchboard.check_end(producer, "client_gone")
        assert server.fetch("/plain") == "plain"


def test_nine_others_lose_nothing_while_one_client_stalls(serve: Callable[..., Server], switchboard: Switchboard):
    server = serve(Kind("gthread", gunicorn("--worker-class", "gthread", "--threads", "11")))
    bodies: dict[int, bytes] = {}

    def read(number: int, response: Response) -> None:
        bodies[number] = response.read()

    with contextlib.ExitStack() as stack:
        stalled, _ = server.open(path(do="flood", line=switchboard.port, options=STALLING), receive_buffer=TINY)
        stack.enter_context(stalled)
        flooding = switchboard.answer()
        readers = []
        for number in range(9):
            wire, response = server.open(path(do="count", count=300, options=STALLING))
            stack.enter_context(wire)
            readers.append(threading.Thread(target=read, args=(number, response)))
            readers[-1].start()
        report = None
        while (message := flooding.hear()) is not None:
            report = message
        assert report == {"closed": "stalled"}
        for reader in readers:
            reader.join()
    expected = [f"{number} " + "n" * 2_000 for number in range(300)]
    for number in range(9):
        assert [event.data for event in Decoder().feed(bodies[number])] == expected
    assert server.state()["closed"] == {"stalled": 1, "done": 9}


def test_keep_alives_alone_find_a_client_that_does_not_read(serve: Callable[..., Server], switchboard: Switchboard):
    server = serve(POOL, send_buffer=TINY)
    # A detached one gets no more than two keep-alives a second.
    options = STALLING | {"keep_alive": 0.001, "detach": False}
    wire, _ = server.open(path(do="idle", line=switchboard.port, options=options), receive_buffer=TINY)
    with wire:
        producer = switchboard.answer()
        producer.hear()
        assert producer.hear() == {"cancelled": "stalled", "closed": "stalled"}
        report = switchboard.answer().hear()
        assert report is not None
        assert report["on_close"] == "stalled"
        assert report["events"] == 1
        assert report["keep_alives"] > 10


def test_a_client_that_reads_slowly_but_steadily_is_not_stalled(serve: Callable[..., Server], switchboard: Switchboard):
    """A second for 64 kB: this one takes about ten times that long for all it is sent, and that is well."""
    server = serve(POOL, send_buffer=TINY)
    options = STALLING | {"send_timeout": 2, "max_pending_bytes": 4_000_000}
    wire, response = server.open(path(do="led", line=switchboard.port, options=options), receive_buffer=TINY)
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        producer.hear()
        data = "s" * 1_000_000
        producer.say(event=data)
        producer.say(do="end")
        body = b""
        started = time.monotonic()
        while piece := response.piece():
            body += piece
            # Ahead of this pace it waits: 1 MB takes four seconds.
            time.sleep(max(0.0, len(body) / 250_000 - (time.monotonic() - started)))
        assert time.monotonic() - started > options["send_timeout"]
        assert body == b"data: " + data.encode() + b"\n\n"
        assert response.end == "last chunk"
    report = switchboard.answer().hear()
    assert report is not None
    assert report["on_close"] == "done"


# admission, of streams that are served

SERVED = {"detach": False}


def open_idle(server: Server, stack: contextlib.ExitStack, **options: object) -> object:
    wire, response = server.open(path(do="idle", options={"keep_alive": 60, **SERVED, **options}))
    stack.enter_context(wire)
    response.expect(OPENING + FIRST)
    return wire


def test_of_four_threads_three_serve_streams_and_one_stays_free_for_ordinary_requests(serve: Callable[..., Server]):
    server = serve(POOL)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            open_idle(server, stack)
            assert server.fetch("/plain") == "plain"
        for _ in range(5):
            wire, refusal = server.open(path(do="idle", options=SERVED), status=503, accept="*/*")
            with wire:
                assert 3 <= int(refusal.header("retry-after") or 0) <= 10
                assert refusal.header("cache-control") == "no-store"
                assert refusal.read() == b"too many event streams\n"
            assert server.fetch("/plain") == "plain"
        state = server.state()
        assert len(state["streams"]) == 3
        assert (state["opened"], state["refused"], state["closed"]) == (3, 5, {})


def test_a_closed_stream_frees_its_slot(serve: Callable[..., Server]):
    server = serve(POOL)
    with contextlib.ExitStack() as stack:
        first = open_idle(server, stack)
        open_idle(server, stack)
        open_idle(server, stack)
        server.open(path(do="idle", options=SERVED), status=503, accept="*/*")[0].close()
        first.close()  # type: ignore[attr-defined]
        assert eventually(lambda: len(server.state()["streams"]) == 2)
        open_idle(server, stack)


def test_a_refused_client_s_connection_ends_with_the_answer(serve: Callable[..., Server]):
    server = serve(POOL)
    with contextlib.ExitStack() as stack:
        open_idle(server, stack, detach="auto")
        wire = stack.enter_context(server.connect())
        refusal = wire.get(path(do="idle", options={"max_detached": 1}))
        assert refusal.status == 503
        assert refusal.header("connection") == "close"
        assert refusal.read() == b"too many event streams\n"
        assert refusal.end == "last chunk"
        assert wire.rest() == b""
        assert server.fetch("/plain") == "plain"


def test_each_key_has_its_own_limit(serve: Callable[..., Server]):
    server = serve(Kind("many", gunicorn("--worker-class", "gthread", "--threads", "10")))
    limit = {"max_streams_per_key": 2}
    with contextlib.ExitStack() as stack:
        # The client's address, where nothing else is said.
        open_idle(server, stack, **limit)
        first = open_idle(server, stack, **limit)
        server.open(path(do="idle", options=limit), status=503, accept="*/*")[0].close()
        for user in ("ada", "grace"):
            open_idle(server, stack, key=user, **limit)
            open_idle(server, stack, key=user, **limit)
            server.open(path(do="idle", options=limit | {"key": user}), status=503, accept="*/*")[0].close()
        first.close()  # type: ignore[attr-defined]
        assert eventually(lambda: len(server.state()["streams"]) == 5)
        open_idle(server, stack, **limit)


ADVICE = "gunicorn -k gthread --threads 32"


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (gunicorn("--worker-class", "sync"), ADVICE),
        (gunicorn("--worker-class", "gthread", "--threads", "1"), ADVICE),
        (launch("werkzeug_alone"), "threaded=True"),
    ],
    ids=["sync", "one thread", "werkzeug without threads"],
)
def test_a_server_that_can_not_serve_streams_well_is_warned_of_once_with_what_can(
    serve: Callable[..., Server], command: Callable[[int, int], list[str]], advice: str
):
    """Detached streams take nothing of such a server."""
    server = serve(Kind("unfit", command, concurrent=False))
    for options in ({}, SERVED, SERVED, SERVED):
        wire, response = server.open(path(do="count", count=1, options=options))
        with wire:
            response.read()
        assert options or "WARNING ssesync" not in server.log()
    warnings = [line for line in server.log().splitlines() if "WARNING ssesync" in line]
    assert len(warnings) == 1
    assert advice in warnings[0]


def test_a_server_that_can_is_not_warned_of(fleet: Fleet[Server]):
    server = fleet(KINDS["gthread"])
    wire, response = server.open(path(do="count", count=1))
    with wire:
        response.read()
    assert ADVICE not in server.log()


# lifetime


def test_a_stream_that_has_lived_long_enough_ends_cleanly_with_a_reconnection_time(
    fleet: Fleet[Server], switchboard: Switchboard
):
    server = fleet(KINDS["gthread"])
    options = {"keep_alive": 60, "max_lifetime": 1.5, "retry": 500, "max_streams": None}
    wire, response = server.open(path(do="idle", line=switchboard.port, options=options))
    with wire:
        response.expect(b"retry: 500\n" + FIRST)
        producer = switchboard.answer()
        producer.hear()
        found = re.fullmatch(rb"retry: (\d+)\n", response.read())
        assert found
        assert 500 <= int(found[1]) <= 1000
        assert response.end == "last chunk"
        assert producer.hear() == {"cancelled": "lifetime", "closed": "lifetime"}
    report = switchboard.answer().hear()
    assert report is not None
    assert report["on_close"] == "lifetime"


def test_the_sync_worker_outlives_its_timeout_when_streams_live_shorter(serve: Callable[..., Server]):
    server = serve(Kind("sync", gunicorn("--worker-class", "sync", "--timeout", "6"), concurrent=False))
    worker = server.state()["pid"]
    started = time.monotonic()
    while time.monotonic() - started < 7:
        wire, response = server.open(path(do="idle", options={"keep_alive": 60, "max_lifetime": 1.2}))
        with wire:
            assert b"\n\nretry: " in response.read()
            assert response.end == "last chunk"
    assert server.state()["pid"] == worker
    assert "WORKER TIMEOUT" not in server.log()
