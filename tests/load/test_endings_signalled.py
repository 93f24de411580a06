"""A worker of gunicorn that ends: each of its clients is told to come back, does, and misses nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.channels.processes import Publisher

from .crowd import Crowd
from .endings import Interrupted, by_reload, by_signal, check_clean_ends
from .lasting import GRACE, GTHREAD, HOOKS_AS_DOCUMENTED, SYNC, Lasting, with_gunicorn

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

# Hundreds of clients on a machine that may have other things to do.
pytestmark = pytest.mark.timeout(900)

NO_HOOKS: dict[str, Any] = {"hooks": None}
PRELOADED: dict[str, Any] = {"preload": True, "environment": {"TESTS_USE_EARLY": "1"}}
DOCUMENTED: dict[str, Any] = {"hooks": HOOKS_AS_DOCUMENTED, **PRELOADED}

TERM, QUIT = by_signal(signal.SIGTERM), by_signal(signal.SIGQUIT)


@pytest.mark.parametrize(
    ("worker", "count", "end", "broker", "options"),
    [
        pytest.param(
            "gthread", 300, by_reload, "redis", {}, id="gthread-300-HUP-hooks-redis", marks=pytest.mark.matrix
        ),
        pytest.param("gthread", 60, QUIT, "sqlite", {}, id="gthread-QUIT-hooks-sqlite"),
        pytest.param("gthread", 60, by_reload, "redis", DOCUMENTED, id="gthread-HUP-documented-preload-redis"),
        pytest.param("gthread", 60, TERM, "sqlite", NO_HOOKS | PRELOADED, id="gthread-TERM-no-hooks-preload-sqlite"),
        pytest.param("sync", 300, TERM, "redis", {}, id="sync-300-TERM-hooks-redis"),
        pytest.param("sync", 60, QUIT, "redis", NO_HOOKS, id="sync-QUIT-no-hooks-redis"),
        pytest.param(
            "sync",
            60,
            by_reload,
            "sqlite",
            NO_HOOKS | PRELOADED,
            id="sync-HUP-no-hooks-preload-sqlite",
            marks=pytest.mark.matrix,
        ),
    ],
)
def test_each_client_gets_a_reconnection_time_and_misses_no_event(
    worker: str,
    count: int,
    end: Callable[[Interrupted], None],
    broker: str,
    options: dict[str, Any],
    serve: Serve,
    crowd_of: Gather,
    publish: Publish,
):
    threads = {"gthread": GTHREAD, "sync": SYNC}[worker]
    interrupted = Interrupted(serve(with_gunicorn(worker, *threads, **options), broker), crowd_of, publish, count)
    end(interrupted)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)


def test_of_two_workers_that_are_reloaded_the_clients_miss_nothing(serve: Serve, crowd_of: Gather, publish: Publish):
    server = serve(with_gunicorn("gthread", *GTHREAD, workers=2), "sqlite")
    server.wait_for_workers(2)
    interrupted = Interrupted(server, crowd_of, publish, 80)
    by_reload(interrupted)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)


def test_clients_that_read_nothing_keep_neither_the_process_nor_the_others(
    serve: Serve, crowd_of: Gather, publish: Publish
):
    server = serve(with_gunicorn("gthread", *GTHREAD))
    crowd = crowd_of(server)
    reading = crowd.gather(40, "/events?channel=all", returns=False)
    stuck = crowd.gather(10, "/events?channel=all", returns=False, receive_buffer=4_096)
    for client in stuck:
        client.pause()
    done: list[bytes] = []
    crowd.call(iter([("/publish?channel=all&first=0&count=300&size=2000", done.append)]))
    crowd.until_all(lambda client: len(client.events) == 300, "all has come", reading)
    server.signal(signal.SIGTERM)
    crowd.until_all(lambda client: client.ends, "the streams have ended", reading)
    check_clean_ends(reading)
    assert server.leaves(within=GRACE / 2)
