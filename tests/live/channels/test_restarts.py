"""Servers that are restarted, reloaded or have their workers replaced while much is published: nobody misses any."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .followers import Crowd
from .processes import Gunicorn, Publisher, await_that

Serve = Callable[..., Gunicorn]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

TWO = ("--workers", "2", "--worker-class", "gthread")
PRELOADED = (*TWO, "--preload")
EARLY = {"environment": {"TESTS_USE_EARLY": "1"}}
PAUSE = ("--pause", "0.001")


def test_a_server_that_is_started_again_on_its_port_goes_on_where_each_client_was(
    serve: Serve, crowd_of: Gather, publish: Publish
):
    server = serve("sqlite", *TWO)
    crowd = crowd_of(server)
    crowd.join(6)
    publisher = publish(crowd, *PAUSE)
    crowd.wait_for(20)
    for end in (server.stop, server.crash):
        count = len(publisher.published)
        end()
        publisher.wait_for(count + 50)
        server.start()
        crowd.wait_for(20)
    crowd.check(*publisher.finish())
    assert all(len(follower.workers) > 2 for follower in crowd.followers)


@pytest.mark.parametrize(
    ("kind", "options", "more"),
    [
        pytest.param("sqlite", TWO, {}, id="sqlite"),
        # Where the broker was in use when the workers were forked.
        pytest.param("sqlite", PRELOADED, EARLY, id="sqlite-preload"),
        pytest.param("redis", PRELOADED, EARLY, id="redis-preload"),
    ],
)
def test_a_reload_is_no_gap(
    kind: str,
    options: tuple[str, ...],
    more: dict[str, dict[str, str]],
    serve: Serve,
    crowd_of: Gather,
    publish: Publish,
):
    server = serve(kind, *options, **more)
    crowd = crowd_of(server)
    crowd.join(6)
    crowd.spread()
    publisher = publish(crowd, *PAUSE)
    crowd.wait_for(20)
    old = server.workers()
    server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    await_that(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old), "the old workers are gone")
    crowd.wait_for(20)
    crowd.check(*publisher.finish())
    assert not {follower.workers[-1] for follower in crowd.followers} & set(old)


def test_workers_that_are_replaced_after_so_many_requests_are_no_gap(serve: Serve, crowd_of: Gather, publish: Publish):
    server = serve("sqlite", *TWO, "--max-requests", "25")
    crowd = crowd_of(server)
    crowd.join(6)
    publisher = publish(crowd, *PAUSE)
    crowd.wait_for(20)
    old = server.workers()

    def all_are_replaced() -> bool:
        # gunicorn 22 ends a worker without an answer to what it has accepted.
        with contextlib.suppress(OSError):
            server.fetch("/plain")
        return not any(Path(f"/proc/{pid}").exists() for pid in old)

    await_that(all_are_replaced, "the old workers are gone")
    crowd.wait_for(20)
    crowd.check(*publisher.finish())
    assert all(len(follower.workers) > 1 for follower in crowd.followers)
