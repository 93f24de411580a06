"""Channels in Django under gunicorn with two workers, and under an ASGI server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import psutil
import pytest
import requests

from ssesync import Reader
from tests.servers import place_of

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = 90.0


def await_that(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Server:
    """A server, and the streams that are open there."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/channels/"
        log = self._stack.enter_context((folder / "log").open("wb"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(word.format(listener.fileno()) for word in command)],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.apps.django_project.settings.channels",
                "PYTHONPATH": str(ROOT),
                "TESTS_DATABASE": str(folder / "db.sqlite3"),
            },
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
        self._stack.callback(self._stop)
        self._streams = self._stack.enter_context(contextlib.ExitStack())

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(90)
        finally:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self._stack.close()
        log = (self.folder / "log").read_text()
        assert "Traceback" not in log, log

    def ask(self, path: str, method: str = "GET", **query: Any) -> requests.Response:
        """A request on a connection of its own, so that any worker may answer."""
        session = self._streams.enter_context(requests.Session())
        session.trust_env = False
        response = session.request(method, self._url + path, params=query, stream=True, timeout=TIMEOUT)
        return self._streams.enter_context(response)

    def open(self, path: str = "events", **query: Any) -> tuple[Reader, str]:
        """A stream, and the worker that serves it."""
        response = self.ask(path, **query)
        assert response.status_code == 200, response.text
        return Reader(response), response.headers["X-Worker"]

    def open_on_all_workers(self, count: int, **query: Any) -> list[Reader]:
        """Streams, at least one of them on each worker."""
        readers, workers = [], set()
        while len(readers) < count or len(workers) < 2:
            assert len(readers) < 60, "one worker has them all"
            reader, worker = self.open(**query)
            readers.append(reader)
            workers.add(worker)
        return readers

    def close_streams(self) -> None:
        self._streams.close()

    def open_database_files(self) -> int:
        workers = psutil.Process(self.process.pid).children()
        return [file.path for worker in workers for file in worker.open_files()].count(str(self.folder / "db.sqlite3"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = [
        "gunicorn", "--config", "tests/gunicorn_hooks.py", "--workers", "2", "--worker-class", "gthread",
        "--threads", "40", "--preload", "--bind", "fd://{}", place_of("channels"),
    ]  # fmt: skip
    server = Server(tmp_path_factory.mktemp("gunicorn"), command)
    yield server
    server.close()


@pytest.fixture
def gunicorn(running: Server) -> Iterator[Server]:
    yield running
    running.close_streams()


def next_data(reader: Reader) -> str | None:
    event = reader.read()
    assert event is not None, "the stream ended"
    return event.data


def test_what_is_committed_in_one_process_reaches_the_clients_of_all_and_nothing_else(gunicorn: Server) -> None:
    readers = gunicorn.open_on_all_workers(6)
    assert gunicorn.ask("act", "POST", undo=["x", "y"], publish=["one", "two", "three"]).status_code == 200
    for reader in readers:
        assert [next_data(reader) for _ in range(3)] == ["one", "two", "three"]
    missed = gunicorn.open(lastEventId=readers[0].last_event_id)[0]
    gunicorn.ask("act", "POST", publish="four")
    assert {next_data(reader) for reader in [*readers, missed]} == {"four"}


def test_open_streams_hold_no_database_connection(gunicorn: Server) -> None:
    readers = gunicorn.open_on_all_workers(10)
    await_that(lambda: gunicorn.open_database_files() == 0)
    gunicorn.ask("act", "POST", publish="x")
    assert {next_data(reader) for reader in readers} == {"x"}
    await_that(lambda: gunicorn.open_database_files() == 0)


def test_a_right_that_is_taken_back_in_one_process_ends_the_streams_of_all(gunicorn: Server) -> None:
    readers, other = gunicorn.open_on_all_workers(4, key="ada"), gunicorn.open(key="grace")[0]
    gunicorn.ask("act", "POST", revoke="ada", publish="x")
    assert next_data(other) == "x"
    for reader in readers:
        assert [event for event in reader if event.data != "x"] == []


def test_a_subscription_of_an_asynchronous_view_is_detached_and_one_with_something_round_it_is_served_through_that(
    gunicorn: Server,
) -> None:
    (awaited, worker), (changed, other) = gunicorn.open("awaited"), gunicorn.open("changed")
    tiers: dict[str, str] = {}

    def both_are_known() -> bool:
        answer = gunicorn.ask("state")
        names = {"/channels/awaited"} if answer.headers["X-Worker"] == worker else set()
        names |= {"/channels/changed"} if answer.headers["X-Worker"] == other else set()
        tiers.update({name: tier for name, tier in answer.json()["tiers"].items() if name in names})
        return tiers == {"/channels/awaited": "detached", "/channels/changed": "served"}

    await_that(both_are_known)
    gunicorn.ask("act", "POST", publish="x")
    assert (next_data(awaited), next_data(changed)) == ("x", "changed x")


def test_a_ticket_is_valid_once_in_all_processes(gunicorn: Server) -> None:
    ticket = gunicorn.ask("state").json()["ticket"]
    statuses = [gunicorn.ask("ticketed", ticket=ticket).status_code for _ in range(12)]
    assert statuses == [200, *[401] * 11]
    assert ticket not in (gunicorn.folder / "log").read_text()


@pytest.fixture
def uvicorn(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, ["uvicorn", "--fd", "{}", "--lifespan", "off", "tests.apps.channels:asgi"])
    yield server
    server.close()


@pytest.mark.skipif(django.VERSION < (5, 0), reason="Django 4.2 does not listen for a client's leaving under ASGI")
def test_it_works_under_asgi(uvicorn: Server) -> None:
    readers = [uvicorn.open(key="ada")[0] for _ in range(3)]
    uvicorn.ask("act", "POST", publish="x")
    assert [next_data(reader) for reader in readers] == ["x"] * 3
    uvicorn.ask("act", "POST", revoke="ada")
    assert [reader.read() for reader in readers] == [None] * 3
    reader = uvicorn.open("awaited")[0]
    uvicorn.ask("act", "POST", publish="y")
    assert next_data(reader) == "y"
    assert uvicorn.ask("state").json()["subscribers"] == 1
    reader.close()
    uvicorn.close_streams()
    await_that(lambda: uvicorn.ask("state").json()["subscribers"] == 0)
