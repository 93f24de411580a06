"""A development server that ends: each of its clients is told to come back, does, and misses nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.live.channels.processes import Publisher
from tests.servers import Kind

from .crowd import Crowd
from .endings import Interrupted, by_signal, check_clean_ends
from .lasting import RUNSERVER_KIND, WERKZEUG_KIND, Lasting

DRAINING = {"TESTS_DRAIN": "1"}


@pytest.mark.parametrize(
    ("kind", "signum", "count"),
    [
        # The interpreter's own exit.
        pytest.param(WERKZEUG_KIND, signal.SIGINT, 60, id="werkzeug-INT"),
        pytest.param(replace(WERKZEUG_KIND, environment=DRAINING), signal.SIGTERM, 60, id="werkzeug-TERM-drained"),
        pytest.param(RUNSERVER_KIND, signal.SIGINT, 40, id="runserver-INT"),
    ],
)
def test_each_client_gets_a_reconnection_time_and_misses_no_event(
    kind: Kind,
    signum: signal.Signals,
    count: int,
    serve: Callable[..., Lasting],
    crowd_of: Callable[..., Crowd],
    publish: Callable[..., Publisher],
):
    interrupted = Interrupted(serve(kind, "sqlite"), crowd_of, publish, count)
    by_signal(signum)(interrupted)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)
