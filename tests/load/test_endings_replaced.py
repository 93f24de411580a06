"""A worker that gunicorn replaces: its clients are told to come back, do, and miss nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.channels.processes import Publisher

from .crowd import Crowd
from .endings import Interrupted, by_max_requests, check_clean_ends
from .lasting import GTHREAD, SYNC, Lasting, with_gunicorn

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

NO_HOOKS: dict[str, Any] = {"hooks": None}


@pytest.mark.parametrize(
    ("name", "worker", "hooks"),
    [
        pytest.param("gthread", GTHREAD, {}, id="gthread-hooks"),
        pytest.param("sync", SYNC, NO_HOOKS, id="sync-no-hooks"),
    ],
)
def test_a_worker_that_is_replaced_after_so_many_requests_ends_its_streams(
    name: str, worker: tuple[str, ...], hooks: dict[str, Any], serve: Serve, crowd_of: Gather, publish: Publish
):
    kind = with_gunicorn(name, *worker, "--max-requests", "80", **hooks)
    interrupted = Interrupted(serve(kind, "sqlite"), crowd_of, publish, 60)
    by_max_requests(interrupted)
    interrupted.check()
    check_clean_ends(interrupted.crowd.clients)
