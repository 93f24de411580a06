"""Runs on two workers: started on either, followed from the other, ended by what happens to their process."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ssesync import Event, Reader
from tests.redis_server import KEEPING, RedisServer
from tests.servers import TIMEOUT, Kind, Server, gunicorn, running

from .chaos import chaos

COMMAND = gunicorn(
    "--workers", "2", "--worker-class", "gthread", "--threads", "4", app="flask_app.runs",
    config="tests/gunicorn_hooks.py",
)  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("runs")
    if request.param == "redis":
        with RedisServer(folder, *KEEPING) as redis, serving(folder, redis.url) as server:
            yield server
    else:
        with serving(folder, f"sqlite:///{folder}/runs.db") as server:
            yield server


def serving(folder: Path, url: str) -> Any:
    (folder / "starts").touch()
    environment = {"BROKER": url, "STARTS": str(folder / "starts")}
    return running(Kind("gthread", COMMAND, environment=environment), folder)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"run-{request.node.name.replace('[', '-').rstrip(']')}-{time.monotonic_ns()}"


def post(server: Server, path: str) -> dict[str, Any]:
    answer = requests.post(f"http://127.0.0.1:{server.port}/runs/{path}", timeout=TIMEOUT)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def follow(server: Server, name: str, last_event_id: str = "") -> Reader:
    """Follow a run, on either worker: each request has a connection of its own."""
    # A worker that is stopping answers such a client with the time to come back.
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id, "Connection": "close"}
    response = requests.get(
        f"http://127.0.0.1:{server.port}/runs/{name}", headers=headers, stream=True, timeout=TIMEOUT
    )  # fmt: skip
    assert response.status_code == 200, response.text
    return Reader(response)


def data_of(events: list[Event]) -> list[str | None]:
    return [event.data for event in events]


def test_followers_on_both_workers_get_all_of_it_from_one_producer(server: Server, name: str) -> None:
    pids = {post(server, f"{name}?count=30")["pid"] for _ in range(10)}
    transcripts = [list(follow(server, name)) for _ in range(4)]
    assert transcripts == [transcripts[0]] * 4
    expected = [f"{name}:{number}" for number in range(30)]
    assert data_of(transcripts[0]) == [*expected, '{"state":"done","events":30}']
    starts = collections.Counter(Path(server.kind.environment["STARTS"]).read_text().splitlines())
    began = [line for line in starts.elements() if line.startswith(f"{name} ")]
    assert len(began) == 1
    assert int(began[0].split()[1]) in {child.pid for child in psutil.Process(server.process.pid).children()} | pids


def test_a_run_is_stopped_from_any_worker(server: Server, name: str) -> None:
    post(server, f"{name}?count=10000")
    with follow(server, name) as reader:
        first = reader.read()
        assert post(server, f"{name}/stop") == {"stopped": True}
        *_, end = reader
    assert first is not None
    assert end.json()["state"] == "stopped"
    assert post(server, f"{name}/stop") == {"stopped": False}


def test_followers_of_a_killed_worker_s_run_are_sent_its_end_by_another_worker(server: Server, name: str) -> None:
    pid = post(server, f"{name}?count=10000")["pid"]
    events: list[Event] = []
    reader = follow(server, name)
    for event in reader:
        events.append(event)
        if len(events) == 5:
            os.kill(pid, signal.SIGKILL)
            break
    reader.close()
    events += follow(server, name, str(events[-1].id))
    assert events[-1].json()["state"] == "interrupted"
    assert [event.type for event in events].count("end") == 1
    assert data_of(events[:-1]) == [f"{name}:{number}" for number in range(len(events) - 1)]


def test_a_worker_that_is_told_to_stop_finishes_its_runs(server: Server, name: str) -> None:
    pid = post(server, f"{name}?count=100&pause=0.02")["pid"]
    os.kill(pid, signal.SIGTERM)
    events: list[Event] = []
    while not events or events[-1].type != "end":
        events += follow(server, name, str(events[-1].id) if events else "")
    assert data_of(events) == [*(f"{name}:{number}" for number in range(100)), '{"state":"done","events":100}']


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_transcripts_are_equal_to_the_log_whatever_happens_to_workers(kind: str, tmp_path: Path) -> None:
    figures, failures = chaos(kind, 5, 4, 7, tmp_path, pauses=(0.3, 1.0))
    assert not failures, figures
    assert figures["kill"] >= 1
    assert figures["runs"] >= 5
