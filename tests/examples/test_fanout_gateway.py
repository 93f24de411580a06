"""The fan-out example: one connection upstream, and readers that take no thread."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ssesync import Backoff, Event, EventSource
from ssesync.testing import Answer, FakeSSEServer

from . import fanout
from .started import environment, get, gunicorn, read

CROWD = 200


@pytest.fixture(scope="module")
def system() -> Iterator[fanout.Running]:
    with fanout.running(CROWD) as system:
        yield system


def quote(source: EventSource) -> dict[str, Any]:
    event = source.read()
    assert event is not None
    assert event.type == "quote"
    values: dict[str, Any] = event.json()
    return values


def test_many_readers_take_one_connection_upstream_and_no_threads(system: fanout.Running) -> None:
    with system.reading() as source:
        while (values := quote(source))["gateway"]["readers"] <= CROWD:
            pass
        assert values["upstream"]["connections"] == values["upstream"]["ever"] == 1
        assert values["gateway"]["readers"] == CROWD + 1
        assert values["gateway"]["threads"] < 20
        figures = system.figures()
        assert figures["streams"] == {"open": CROWD + 1, "detached": CROWD + 1}
        assert (figures["feed"]["state"], figures["feed"]["restarts"]) == ("feeding", 0)
        before = values["prices"]
        assert quote(source)["prices"].keys() == before.keys()
    # The worker does one thing at a time, and is free for it.
    with get(f"{system.url}/") as response:
        assert response.status_code == 200
        assert "<title>fanout_gateway</title>" in response.text


def test_the_readers_report_how_long_an_event_took_to_reach_all(system: fanout.Running) -> None:
    assert system.line_with("had it within").startswith(f"  All {CROWD} had it within ")


def test_a_reload_ends_the_streams_and_the_new_worker_has_the_one_connection() -> None:
    with fanout.running(0) as system, system.reading(backoff=Backoff(initial=0.1, max_delay=1)) as source:
        first = quote(source)
        arbiter = system.arbiter()
        (old,) = arbiter.children()
        arbiter.send_signal(signal.SIGHUP)
        psutil.wait_procs([old], fanout.TIMEOUT)
        deadline = time.monotonic() + fanout.TIMEOUT
        # Those that were under way come from the old one still.
        while source.attempt == 0:
            assert source.read() is not None
            assert time.monotonic() < deadline
        event = source.read()
        while event is not None and event.type == "reset":
            event = source.read()
        assert event is not None
        assert source.retry is not None
        assert old not in arbiter.children()
        while (values := quote(source))["upstream"]["connections"] != 1:
            assert time.monotonic() < deadline
        assert values["upstream"]["ever"] == first["upstream"]["ever"] + 1


def test_several_processes_share_one_connection(tmp_path: Path) -> None:
    values = Event.from_json({"prices": {}, "upstream": {}}, type="quote")
    with FakeSSEServer(Answer().event(values).stall()) as upstream:
        variables = {"UPSTREAM": upstream.url, "BROKER": f"sqlite:///{tmp_path}/prices.db", "WEB_CONCURRENCY": "2"}
        with gunicorn("fanout_gateway", tmp_path, **variables) as server:
            states: dict[str, int] = {}
            deadline = time.monotonic() + 40
            while {"feeding", "standby"} - states.keys():
                assert time.monotonic() < deadline, states
                with read(f"{server.url}events"), get(f"{server.url}figures") as response:
                    state = response.json()["feed"]["state"]
                states[state] = states.get(state, 0) + 1
            assert upstream.connections == 1


def test_a_port_in_use_and_an_invalid_number_are_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(PORT=port)
        assert done.returncode == 1
        assert done.stderr.startswith(f"can't listen on port {port}: ")
    done = run(CROWD="many")
    assert (done.returncode, done.stderr) == (1, "CROWD takes a number, got 'many'\n")


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(fanout.RUN, env=environment(**variables), capture_output=True, text=True, timeout=200)
