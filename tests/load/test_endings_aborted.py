"""A worker that gunicorn aborts: its clients are told to come back, do, and miss nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.channels.processes import Publisher

from .crowd import Crowd
from .endings import Interrupted, by_timeout, check_clean_ends
from .lasting import HOOKS_AS_DOCUMENTED, SYNC, Lasting, with_gunicorn

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

# Hundreds of clients on a machine that may have other things to do.
pytestmark = pytest.mark.timeout(900)

NO_HOOKS: dict[str, Any] = {"hooks": None}
DOCUMENTED: dict[str, Any] = {"hooks": HOOKS_AS_DOCUMENTED}


@pytest.mark.parametrize(
    ("count", "waits", "broker", "options"),
    [
        pytest.param(300, False, "redis", NO_HOOKS, id="300-no-hooks", marks=pytest.mark.matrix),
        pytest.param(60, False, "redis", NO_HOOKS, id="no-hooks"),
        pytest.param(60, True, "sqlite", NO_HOOKS, id="waited-for-no-hooks", marks=pytest.mark.matrix),
        pytest.param(60, True, "sqlite", DOCUMENTED, id="waited-for-documented"),
    ],
)
def test_a_worker_that_is_aborted_because_of_a_blocking_view_ends_its_streams_first(
    count: int, waits: bool, broker: str, options: dict[str, Any], serve: Serve, crowd_of: Gather, publish: Publish
):
    # A worker that takes longer to come up is aborted too.
    kind = with_gunicorn("sync", *SYNC, "--timeout", "4", **options)
    interrupted = Interrupted(serve(kind, broker), crowd_of, publish, count)
    by_timeout(interrupted, waits=waits)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)
