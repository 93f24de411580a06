"""gunicorn's workers are replaced while much is published, and no client notices: its connection stays."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.live.channels.processes import Gunicorn, Publisher, await_that

from .clients import Client, Crowd, wanted

Serve = Callable[..., Gunicorn]
Join = Callable[..., Crowd]
Publish = Callable[..., Publisher]

CHANNELS = ["a", "b", "c"]
PAUSE = ("--pause", "0.005")
TWO = ("--workers", "2", "--threads", "4")
GTHREAD = (*TWO, "--worker-class", "gthread")
SYNC = (*TWO, "--worker-class", "sync")
MOVED = re.compile(r"(\d+) event streams moved to worker (\d+) in (\d+) ms")
#: The end of a stream whose client is to reconnect.
RETRY = re.compile(rb"retry: \d+\n+\Z")


def reload(server: Gunicorn) -> None:
    """Replace all workers, and wait until the old ones are gone."""
    old = server.workers()
    server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    await_that(lambda: not any(map(psutil.pid_exists, old)), "the old workers are gone")


def moved(server: Gunicorn) -> int:
    """Count the clients that have moved so far."""
    return sum(int(count) for count, _, _ in MOVED.findall(server.log()))


def end(*clients: Client) -> None:
    """Fail unless clients are sent a reconnection time, and their connections end."""
    await_that(lambda: all(client.ended for client in clients), "the connections end")
    assert all(RETRY.search(client.body) for client in clients)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "environment"),
    [
        pytest.param("redis", (*GTHREAD, "--preload"), {}, id="gthread-redis-preload", marks=pytest.mark.matrix),
        pytest.param("sqlite", (*SYNC, "--preload"), {}, id="sync-sqlite-preload", marks=pytest.mark.matrix),
        pytest.param("redis", SYNC, {}, id="sync-redis", marks=pytest.mark.matrix),
        pytest.param("redis", (*SYNC, "--preload"), {}, id="sync-redis-preload"),
        pytest.param("sqlite", GTHREAD, {"TESTS_DJANGO": "1"}, id="gthread-sqlite-django"),
    ],
)
def test_a_reload_interrupts_no_client(
    kind: str, options: tuple[str, ...], environment: dict[str, str], serve: Serve, join: Join, publish: Publish
):
    server = serve(kind, *options, **environment)
    crowd = join(server, 30, CHANNELS)
    crowd.join(30, CHANNELS, version="1.0")
    publisher = publish(server, CHANNELS, *PAUSE)
    for _ in range(2):
        publisher.wait_for(len(publisher.published) + 50)
        reload(server)
    crowd.check(publisher.finish())
    # More on a busy machine: to the other old worker, if that has not noticed yet that it stops.
    assert moved(server) >= 2 * 60


@pytest.mark.slow
def test_clients_that_come_while_the_workers_are_replaced_stay_if_they_were_admitted(
    serve: Serve, join: Join, publish: Publish
):
    server = serve("sqlite", *GTHREAD)
    crowd = join(server, 1, CHANNELS)
    publisher = publish(server, CHANNELS, *PAUSE)
    for _ in range(2):
        publisher.wait_for(len(publisher.published) + 50)
        old = server.workers()
        server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        while any(map(psutil.pid_exists, old)):
            crowd.connect(CHANNELS[len(crowd.clients) % 3])
            time.sleep(0.01)
    await_that(lambda: all(client.is_open or client.ended for client in crowd.clients), "all are answered")
    published = publisher.finish()
    admitted = [client for client in crowd.clients if client.is_open]
    crowd.wait_for_the_end(admitted)
    for client in admitted:
        events = client.events
        assert events == wanted(client, published)[-len(events) :]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [pytest.param(GTHREAD, id="gthread"), pytest.param(SYNC, id="sync", marks=pytest.mark.matrix)],
)
def test_workers_that_end_after_so_many_requests_interrupt_no_client(
    options: tuple[str, ...], serve: Serve, join: Join, publish: Publish, runtime: Path
):
    server = serve("sqlite", *options, "--max-requests", "20")
    crowd = join(server, 20, CHANNELS)
    publisher = publish(server, CHANNELS, *PAUSE)

    def is_complete() -> bool:
        log = server.log()
        ended = set(re.findall(r"\[(\d+)\] \[INFO\] Autorestarting", log))
        return log.count("Booting") == len(ended) + 2 and len(list(runtime.glob("*/*/*.sock"))) == 2

    while server.log().count("Booting") < 6:
        await_that(is_complete, "an ended worker is replaced")
        with contextlib.suppress(OSError):  # the worker that was connected to has accepted its last request
            server.fetch("/plain")
    crowd.check(publisher.finish())
    assert moved(server) >= 20


@pytest.mark.slow
def test_a_successor_that_loads_for_seconds_is_waited_for_while_events_go_on(
    serve: Serve, join: Join, publish: Publish, tmp_path: Path
):
    server = serve("sqlite", *GTHREAD)
    crowd = join(server, 20, CHANNELS)
    [stays] = join(server, 1, ["a"], query="&on_close=1").clients
    publisher = publish(server, CHANNELS, *PAUSE)
    (tmp_path / "loading").write_text("3")
    server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    end(stays)
    assert not moved(server)
    publisher.wait_for(len(publisher.published) + 50)
    assert not moved(server)
    await_that(lambda: moved(server) == 20, "the clients move")
    crowd.check(publisher.finish())


@pytest.mark.slow
def test_clients_end_if_no_successor_survives_its_loading(serve: Serve, join: Join, tmp_path: Path):
    server = serve("sqlite", *GTHREAD)
    crowd = join(server, 10, CHANNELS)
    (tmp_path / "loading").write_text("die")
    server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    end(*crowd.clients)
    assert not moved(server)
    assert "event streams could not move to another worker" in server.log()
    (tmp_path / "loading").unlink()
    await_that(lambda: server._answers(), "workers load again")


def test_a_full_stop_and_a_quick_one_end_all_streams_at_once(serve: Serve, join: Join):
    server = serve("sqlite", *GTHREAD, "--graceful-timeout", "150")
    crowd = join(server, 20, CHANNELS)
    quick = server.workers()[0]
    held = sum(state["worker"] == quick for state in [server.state()])
    os.kill(quick, signal.SIGQUIT)
    await_that(lambda: not psutil.pid_exists(quick), "the worker is gone")
    assert held in (0, 1)
    # A worker that is sent SIGTERM before it has set its handlers ignores it, and gunicorn waits for it.
    answered = set[int]()

    def all_answer() -> bool:
        answered.add(server.state()["worker"])
        return quick not in server.workers() and len(server.workers()) == 2 and answered >= set(server.workers())

    await_that(all_answer, "both workers answer")
    rest = [client for client in crowd.clients if not client.ended]
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 60  # and not after the graceful timeout
    end(*rest)
    assert not moved(server)


def test_streams_that_stay_end_as_without_other_workers(serve: Serve, join: Join):
    server = serve("memory", *GTHREAD)
    crowd = join(server, 10, CHANNELS)
    reload(server)
    end(*crowd.clients)
    assert not moved(server)


@pytest.mark.slow
def test_the_only_worker_that_ends_after_so_many_requests_ends_its_streams(serve: Serve, join: Join):
    server = serve("sqlite", "--workers", "1", "--worker-class", "gthread", "--max-requests", "15")
    crowd = join(server, 5, CHANNELS)
    while not all(client.ended for client in crowd.clients):
        with contextlib.suppress(OSError):
            server.fetch("/plain")
    end(*crowd.clients)
    assert not moved(server)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_master_of_root_has_workers_of_another_user(serve: Serve, join: Join, publish: Publish, runtime: Path):
    # The log is there too: whenever another pytest begins, it takes the folders of all from other users.
    runtime.chmod(0o777)
    # Preloaded, as the user of the workers may not have access to Python's own folder.
    server = serve("sqlite", *GTHREAD, "--preload", "--user", "12345", "--group", "12345", folder=runtime)
    await_that(lambda: len(list(runtime.glob("*/*/*.sock"))) == 2, "both workers have a socket")
    assert {path.stat().st_uid for path in runtime.glob("*/*/*.sock")} == {12345}
    crowd = join(server, 10, CHANNELS)
    publisher = publish(server, CHANNELS, *PAUSE)
    reload(server)
    crowd.check(publisher.finish())
    assert moved(server) == 10


def test_a_folder_that_others_can_enter_turns_it_off(serve: Serve, join: Join, runtime: Path):
    (runtime / f"ssesync-{os.geteuid()}").mkdir(mode=0o755)
    (runtime / f"ssesync-{os.geteuid()}").chmod(0o755)
    server = serve("sqlite", *GTHREAD)
    assert server.log().count("as there can be no socket for it") == 1
    crowd = join(server, 5, CHANNELS)
    reload(server)
    end(*crowd.clients)
