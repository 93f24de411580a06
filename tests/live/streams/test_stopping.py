"""A process that stops ends its streams cleanly, and waits for nobody who need not be waited for."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import Response
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import HOOKS, Kind, Server, Wire, eventually

from .kinds import FIRST, OPENING, gunicorn, launch, path

#: What gunicorn would wait for streams that don't end. No test here may take half as long.
GRACE = 40
FAREWELL = b"event: farewell\ndata: goodbye\n\n"
SILENT = {"keep_alive": 60, "max_streams": None}

#: Ten streams, and an ordinary request.
GTHREAD = ("--worker-class", "gthread", "--threads", "11")
PLAIN = ("--graceful-timeout", str(GRACE), *GTHREAD)


def as_documented(*options: str) -> Callable[[int, int], list[str]]:
    """``gunicorn -c python:ssesync.gunicorn``, and no more than has to be."""
    from gunicorn.config import KNOWN_SETTINGS

    if "control_socket_disable" in {setting.name for setting in KNOWN_SETTINGS}:
        options = ("--no-control-socket", *options)
    return gunicorn(*PLAIN, *options, config="python:ssesync.gunicorn")


OWN_HANDLER = {"TESTS_DRAIN": "1"}

#: How streams are told, and whether they get a farewell.
WAYS = {
    "hooks": Kind("hooks", as_documented()),
    "hooks in a config": Kind("hooks in a config", gunicorn(*GTHREAD, config=HOOKS)),
    "hooks, preload": Kind("hooks, preload", as_documented("--preload")),
    "in the application": Kind("in the application", gunicorn(*PLAIN), environment=OWN_HANDLER),
    "gevent": Kind("gevent", gunicorn("--worker-class", "gevent", config=HOOKS)),
    "gevent, in the application": Kind(
        "gevent, in the application",
        gunicorn("--graceful-timeout", str(GRACE), "--worker-class", "gevent"),
        environment=OWN_HANDLER,
    ),
}


@contextlib.contextmanager
def idle_streams(server: Server, count: int = 10, **options: Any) -> Iterator[list[tuple[Wire, Response]]]:
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(count):
            wire, response = server.open(path(do="idle", options=SILENT | options))
            stack.enter_context(wire)
            response.expect(OPENING + FIRST)
            streams.append((wire, response))
        yield streams


def post(server: Server, target: str) -> tuple[Wire, Response]:
    """A stream that its client can't resume."""
    wire = server.connect()
    return wire, wire.request("POST", target, Content_Length="0")


def assert_all_end_cleanly(streams: list[tuple[Wire, Response]], farewell: bytes = b"") -> None:
    waits = set()
    for _, response in streams:
        rest = response.read()
        found = re.fullmatch(rb"%sretry: (\d+)\n" % farewell, rest)
        assert found, rest
        assert response.end == "last chunk"
        waits.add(int(found[1]))
    assert all(2000 <= wait <= 4000 for wait in waits)
    # So that they don't come back in lock-step.
    assert len(waits) > 1 or len(streams) < 2


@pytest.mark.parametrize(
    ("way", "signum"),
    [
        # SIGINT in each way is a matter of the matrix: gunicorn does the same then in all of them.
        pytest.param(
            way, signum, id=f"{way}-{signum.name}",
            marks=[pytest.mark.matrix] if signum is signal.SIGINT and way not in ("hooks", "gevent") else [],
        )
        for way in WAYS
        for signum in (signal.SIGTERM, signal.SIGINT)
    ],
)  # fmt: skip
def test_ten_idle_streams_end_cleanly_and_the_server_leaves_at_once(
    serve: Callable[..., Server], way: str, signum: signal.Signals
):
    server = serve(WAYS[way])
    with idle_streams(server) as streams:
        for _ in range(2):
            # SIGINT has gunicorn's gthread wait for itself where it is about to start a thread: now it has all of them.
            server.fetch("/plain")
        stopped_at = time.monotonic()
        server.signal(signum)
        assert_all_end_cleanly(streams, FAREWELL if WAYS[way].environment else b"")
        assert server.leaves(within=GRACE / 2)
        assert time.monotonic() - stopped_at < GRACE / 2
    assert server.process.returncode == 0
    assert "Traceback" not in server.log()


def test_the_sync_workers_stream_ends_too(serve: Callable[..., Server]):
    server = serve(Kind("sync", gunicorn("--worker-class", "sync", config=HOOKS)))
    with idle_streams(server, 1) as streams:
        server.signal(signal.SIGTERM)
        assert_all_end_cleanly(streams)
        assert server.leaves(within=GRACE / 2)


@pytest.mark.parametrize("way", ["hooks", "hooks, preload", "in the application", "gevent"])
def test_a_reload_ends_the_old_workers_streams_and_the_new_worker_serves(serve: Callable[..., Server], way: str):
    server = serve(WAYS[way])
    old = server.state()["pid"]
    with idle_streams(server) as streams:
        server.signal(signal.SIGHUP)
        assert_all_end_cleanly(streams, FAREWELL if WAYS[way].environment else b"")
        assert eventually(lambda: not Path(f"/proc/{old}").exists(), within=GRACE / 2)
        assert server.state()["pid"] != old
    with idle_streams(server, 2):
        assert len(server.state()["streams"]) == 2


@pytest.mark.parametrize("way", ["hooks", "in the application", "gevent"])
def test_max_requests_ends_the_streams_of_the_worker_that_is_replaced(serve: Callable[..., Server], way: str):
    kind = WAYS[way]
    command = kind.command
    limited = Kind(
        kind.name,
        lambda *where: [*command(*where)[:-1], "--max-requests", "20", command(*where)[-1]],
        environment=kind.environment,
    )
    server = serve(limited)
    old = server.state()["pid"]
    with idle_streams(server) as streams:
        for _ in range(12):
            with contextlib.suppress(OSError, EOFError):  # there may be no worker for a moment
                server.fetch("/plain")
        assert_all_end_cleanly(streams, FAREWELL if kind.environment else b"")
        assert eventually(lambda: not Path(f"/proc/{old}").exists(), within=GRACE / 2)
        assert server.state()["pid"] != old


def test_without_hooks_gunicorn_waits_the_whole_graceful_timeout_for_streams_that_threads_serve(
    serve: Callable[..., Server],
):
    """What the hooks are for. Should gunicorn learn it by itself one day, they can go."""
    server = serve(Kind("no hooks", gunicorn(*GTHREAD, "--graceful-timeout", "2")))
    with idle_streams(server, 1, detach=False) as [(_, response)]:
        stopped_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.leaves()
        assert time.monotonic() - stopped_at >= 2
        with contextlib.suppress(OSError, EOFError):
            assert b"retry" not in response.read()


def test_streams_that_must_finish_do_so_while_the_others_end(serve: Callable[..., Server], switchboard: Switchboard):
    server = serve(WAYS["hooks"])
    wire, response = server.open(path(do="led", line=switchboard.port, options=SILENT | {"drain": "finish"}))
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        with idle_streams(server, 3) as streams:
            server.signal(signal.SIGTERM)
            assert_all_end_cleanly(streams)
        producer.say(event="half of the answer")
        response.expect(b"data: half of the answer\n\n")
        assert server.process.poll() is None
        producer.say(event="the other half")
        producer.say(do="end")
        assert response.read() == b"data: the other half\n\n"
        assert response.end == "last chunk"
        assert server.leaves(within=GRACE / 2)


def test_streams_that_must_finish_get_no_longer_than_drain_timeout(serve: Callable[..., Server]):
    server = serve(WAYS["hooks"])
    wire, response = server.open(path(do="idle", options=SILENT | {"drain": "finish", "drain_timeout": 1}))
    with wire:
        response.expect(OPENING + FIRST)
        stopped_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert_all_end_cleanly([(wire, response)])
        assert time.monotonic() - stopped_at >= 1
        assert server.leaves(within=GRACE / 2)


@pytest.mark.parametrize("way", ["hooks", "in the application", "gevent", "sync"])
def test_by_default_an_answer_that_can_not_be_resumed_finishes(
    serve: Callable[..., Server], switchboard: Switchboard, way: str
):
    sync = Kind("sync", gunicorn("--worker-class", "sync", config=HOOKS))
    server = serve(sync if way == "sync" else WAYS[way])
    wire, response = post(server, path(do="led", line=switchboard.port, options=SILENT))
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        with idle_streams(server, 0 if way == "sync" else 2) as streams:
            server.signal(signal.SIGTERM)
            assert_all_end_cleanly(streams, FAREWELL if way == "in the application" else b"")
        producer.say(event="the other half")
        response.expect(b"data: the other half\n\n")
        producer.say(do="end")
        assert response.read() == b""
        assert response.end == "last chunk"
    assert server.leaves(within=GRACE / 2)


@pytest.mark.parametrize(
    ("options", "signum"),
    [({}, signal.SIGINT), ({}, signal.SIGQUIT), ({"drain": "end"}, signal.SIGTERM)],
    ids=["SIGINT", "SIGQUIT", "the old default"],
)
def test_an_answer_that_is_not_waited_for_is_incomplete(
    serve: Callable[..., Server], options: dict[str, Any], signum: signal.Signals
):
    server = serve(WAYS["hooks"])
    wire, response = post(server, path(do="idle", options=SILENT | options))
    with wire:
        response.expect(OPENING + FIRST)
        server.signal(signum)
        assert response.find(b"\n\n").startswith(b"event: error\ndata: ")
        with pytest.raises(EOFError):
            response.read()
    assert server.leaves(within=GRACE / 2)


def test_an_endless_answer_is_cut_before_gunicorns_graceful_timeout(serve: Callable[..., Server]):
    server = serve(Kind("impatient", gunicorn(*GTHREAD, "--graceful-timeout", "4", config=HOOKS)))
    wire, response = post(server, path(do="idle", options=SILENT))
    with wire:
        response.expect(OPENING + FIRST)
        stopped_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert response.find(b"\n\n").startswith(b"event: error\ndata: ")
        assert time.monotonic() - stopped_at >= 2
        with pytest.raises(EOFError):
            response.read()
    assert server.leaves(within=GRACE / 2)
    # It was not killed.
    assert server.process.returncode == 0
    assert "the event stream /stream was still running 2 s after" in server.log()
    assert "--graceful-timeout is 4 s" in server.log()


def test_a_worker_that_lets_an_answer_finish_is_not_taken_for_dead(
    serve: Callable[..., Server], switchboard: Switchboard
):
    """A sync worker says nothing to its arbiter while it serves."""
    server = serve(Kind("sync", gunicorn("--worker-class", "sync", "--timeout", "2", config=HOOKS)))
    wire, response = post(server, path(do="led", line=switchboard.port, options=SILENT))
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        server.signal(signal.SIGHUP)
        time.sleep(4)  # twice the time after which the arbiter kills
        producer.say(event="the rest")
        producer.say(do="end")
        assert response.read() == b"data: the rest\n\n"
        assert response.end == "last chunk"


def test_a_server_without_a_handler_is_terminated_by_the_signal_after_its_streams_have_ended(
    serve: Callable[..., Server],
):
    server = serve(Kind("werkzeug", launch("werkzeug"), environment=OWN_HANDLER))
    with idle_streams(server) as streams:
        server.signal(signal.SIGTERM)
        assert_all_end_cleanly(streams, FAREWELL)
        assert server.leaves()
    assert server.process.returncode == -signal.SIGTERM


def test_a_server_that_never_had_a_stream_is_terminated_by_the_signal_at_once(serve: Callable[..., Server]):
    server = serve(Kind("werkzeug", launch("werkzeug"), environment=OWN_HANDLER))
    server.signal(signal.SIGTERM)
    assert server.leaves()
    assert server.process.returncode == -signal.SIGTERM


def test_while_it_drains_a_server_refuses_new_streams_and_answers_all_else(
    serve: Callable[..., Server], switchboard: Switchboard
):
    server = serve(Kind("werkzeug", launch("werkzeug"), environment=OWN_HANDLER))
    wire, response = server.open(path(do="led", line=switchboard.port, options=SILENT | {"drain": "finish"}))
    with wire, idle_streams(server, 1) as streams:
        response.expect(OPENING)
        producer = switchboard.answer()
        server.signal(signal.SIGTERM)
        assert_all_end_cleanly(streams, FAREWELL)
        late, answer = server.open(path(do="idle", options=SILENT))
        with late:
            # A browser would not come back after a 503.
            assert re.fullmatch(rb"retry: [234]\d{3}\n", answer.read())
        assert server.fetch("/plain") == "plain"
        assert server.process.poll() is None
        producer.say(do="end")
        response.read()
        assert server.leaves()
    assert server.process.returncode == -signal.SIGTERM


def streams_are_opened(server: Server) -> bool:
    """Not after the signal was heard, which takes a moment."""
    wire, response = server.open(path(do="idle"))
    with wire:
        return not response.piece().startswith(b"retry: ")


def test_a_second_signal_does_not_wait_for_streams_that_must_finish(serve: Callable[..., Server]):
    server = serve(Kind("werkzeug", launch("werkzeug"), environment=OWN_HANDLER))
    wire, response = server.open(path(do="idle", options=SILENT | {"drain": "finish"}))
    with wire:
        response.expect(OPENING + FIRST)
        server.signal(signal.SIGTERM)
        assert eventually(lambda: not streams_are_opened(server))
        server.signal(signal.SIGTERM)
        assert server.leaves(within=15)
    assert server.process.returncode == -signal.SIGTERM


def test_with_preload_the_arbiter_runs_no_thread_and_each_worker_one_reactor(serve: Callable[..., Server]):
    server = serve(Kind("preload", as_documented("--preload", "--workers", "3", "--threads", "14")))
    with contextlib.ExitStack() as stack:
        reactors: dict[int, int] = {}
        for _ in range(60):
            wire, response = server.open(path(do="idle", options=SILENT))
            stack.enter_context(wire)
            response.expect(OPENING + FIRST)
            state = server.state()
            if state["streams"]:
                reactors[state["pid"]] = state["threads"].count("ssesync-reactor")
            if len(reactors) == 3:
                break
        assert list(reactors.values()) == [1, 1, 1]
        assert os.listdir(f"/proc/{server.process.pid}/task") == [str(server.process.pid)]  # noqa: PTH208
        server.signal(signal.SIGTERM)
        assert server.leaves(within=GRACE / 2)
