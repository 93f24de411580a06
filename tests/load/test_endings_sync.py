"""A sync worker that ends: each of its hundreds of clients is told to come back, does, and misses nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.channels.processes import Publisher

from .crowd import Crowd
from .endings import Interrupted, by_reload, by_signal, check_clean_ends
from .lasting import SYNC, Lasting, with_gunicorn

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

# Hundreds of clients on a machine that may have other things to do.
pytestmark = pytest.mark.timeout(900)

NO_HOOKS: dict[str, Any] = {"hooks": None}
PRELOADED: dict[str, Any] = {"preload": True, "environment": {"TESTS_USE_EARLY": "1"}}


@pytest.mark.parametrize(
    ("count", "end", "broker", "options"),
    [
        pytest.param(500, by_signal(signal.SIGTERM), "redis", {}, id="500-TERM-hooks-redis"),
        pytest.param(60, by_signal(signal.SIGQUIT), "redis", NO_HOOKS, id="QUIT-no-hooks-redis"),
        pytest.param(60, by_reload, "sqlite", NO_HOOKS | PRELOADED, id="HUP-no-hooks-preload-sqlite"),
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
