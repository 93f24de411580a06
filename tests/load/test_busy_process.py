"""A thread that computes in the same process keeps nobody from the events."""

from __future__ import annotations

import time
from collections.abc import Callable

from .crowd import Crowd
from .lasting import GTHREAD_KIND, Lasting, check_detached

CLIENTS, EVENTS = 200, 20


def test_beside_a_thread_that_computes_events_reach_all_in_about_the_time_that_they_take_otherwise(
    serve: Callable[..., Lasting], crowd_of: Callable[..., Crowd]
):
    server = serve(GTHREAD_KIND)
    crowd = crowd_of(server)
    crowd.gather(CLIENTS, "/events?channel=all")
    check_detached(server, CLIENTS)
    sent = 0

    def seconds() -> float:
        """For that many events, each published when the one before has reached all."""
        nonlocal sent
        begun = time.monotonic()
        for _ in range(EVENTS):
            done: list[bytes] = []
            crowd.call(iter([(f"/publish?channel=all&first={sent}", done.append)]))
            sent += 1
            crowd.until_all(lambda client: len(client.events) == sent, "all have it")  # noqa: B023
        return time.monotonic() - begun

    quiet = min(seconds() for _ in range(2))
    server.fetch("/spin?on=1")
    busy = seconds()
    server.fetch("/spin?on=0")
    # Loose, as the machine may have other things to do. A send that gave way to that thread would take 5 ms for each
    # client: 20 s in all.
    assert busy < 20 * quiet + 5, f"{busy:.1f} s instead of {quiet:.1f} s"
    assert all(client.connections == 1 for client in crowd.clients)
