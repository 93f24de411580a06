"""A sync worker that ends: each of its hundreds of clients is told to come back, does, and misses nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.channels_live.servers import Publisher

from .crowd import Crowd
from .endings import Interrupted, by_max_requests, by_reload, by_signal, by_timeout, check_clean_ends
from .servers import HOOKS_AS_DOCUMENTED, SYNC, Lasting, with_gunicorn

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

NO_HOOKS: dict[str, Any] = {"hooks": None}
DOCUMENTED: dict[str, Any] = {"hooks": HOOKS_AS_DOCUMENTED}
PRELOADED: dict[str, Any] = {"preload": True, "environment": {"TESTS_USE_EARLY": "1"}}


@pytest.mark.parametrize(
    ("count", "end", "broker", "options"),
    [
        pytest.param(500, by_signal(signal.SIGTERM), "redis", {}, id="500-TERM-hooks-redis"),
        pytest.param(500, by_reload, "sqlite", NO_HOOKS, id="500-HUP-no-hooks-sqlite"),
        pytest.param(100, by_signal(signal.SIGQUIT), "redis", NO_HOOKS, id="QUIT-no-hooks-redis"),
        pytest.param(100, by_reload, "sqlite", PRELOADED, id="HUP-hooks-preload-sqlite"),
    ],
)
def test_each_client_is_told_to_come_back_and_misses_nothing(
    count: int,
    end: Callable[[Interrupted], None],
    broker: str,
    options: dict[str, Any],
    serve: Serve,
    crowd_of: Gather,
    publish: Publish,
):
    interrupted = Interrupted(serve(with_gunicorn("sync", *SYNC, **options), broker), crowd_of, publish, count)
    end(interrupted)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)


@pytest.mark.parametrize(
    ("count", "waits", "broker", "options"),
    [
        pytest.param(500, False, "redis", NO_HOOKS, id="500-no-hooks"),
        pytest.param(100, True, "sqlite", NO_HOOKS, id="waited-for-no-hooks"),
        pytest.param(100, True, "sqlite", DOCUMENTED, id="waited-for-documented"),
    ],
)
def test_a_worker_that_is_aborted_for_a_view_that_blocks_tells_its_clients_first(
    count: int, waits: bool, broker: str, options: dict[str, Any], serve: Serve, crowd_of: Gather, publish: Publish
):
    kind = with_gunicorn("sync", *SYNC, "--timeout", "2", **options)
    interrupted = Interrupted(serve(kind, broker), crowd_of, publish, count)
    by_timeout(interrupted, waits=waits)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)


def test_a_worker_that_is_replaced_after_so_many_requests_ends_its_streams(
    serve: Serve, crowd_of: Gather, publish: Publish
):
    kind = with_gunicorn("sync", *SYNC, "--max-requests", "120", hooks=None)
    interrupted = Interrupted(serve(kind, "sqlite"), crowd_of, publish, 100)
    by_max_requests(interrupted)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)
