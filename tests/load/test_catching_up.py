"""Hundreds of clients that come back with ids of long ago, all at once, while more is published."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ssesync import open_broker
from tests.apps.line import Line
from tests.live.channels.processes import Publisher
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Kind

from .clients import Came
from .crowd import Crowd
from .lasting import GTHREAD_KIND, SYNC_KIND, Lasting, check_detached

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]

OLD = 600


def publish_old(server: Lasting) -> list[Came]:
    with open_broker(server.broker) as broker:
        return [Came(broker.publish("all", f"old {number}"), "", f"old {number}") for number in range(OLD)]


@pytest.mark.parametrize(
    ("kind", "broker"),
    [
        pytest.param(GTHREAD_KIND, "sqlite", id="gthread-sqlite", marks=pytest.mark.matrix),
        pytest.param(SYNC_KIND, "redis", id="sync-redis"),
    ],
)
def test_each_gets_all_after_its_id_and_what_is_live(
    kind: Kind, broker: str, serve: Serve, crowd_of: Gather, publish: Callable[..., Publisher]
):
    server = serve(kind, broker)
    crowd = crowd_of(server, seed=7)
    old = publish_old(server)
    publisher = publish(server, "all", "--pause", "0.04")  # five thousand events a second for all together
    for _ in range(200):
        # Some of one reading of the log, most of many.
        crowd.join(1, "/events?channel=all", since=crowd.dice.choice(old).id)
    starts = [client.since for client in crowd.clients]
    crowd.until_all(lambda client: client.data[-1:] and client.data[-1].startswith("all"), "all have caught up")
    check_detached(server, 200)
    [*_, (_, last)] = publisher.finish()
    crowd.until_all(lambda client: client.data[-1:] == [last], "the last event came")
    history = server.history("all", old[0].id, last)
    assert history[: OLD - 1] == old[1:]
    begins = {event.id: place + 1 for place, event in enumerate(history)} | {old[0].id: 0}
    for client, start in zip(crowd.clients, starts, strict=True):
        crowd.check(history[begins[start] :], [client])
        assert client.connections == 1


def test_on_close_that_takes_its_time_keeps_nobody_from_catching_up(
    serve: Serve, crowd_of: Gather, switchboard: Switchboard
):
    server = serve(GTHREAD_KIND, "sqlite")
    crowd = crowd_of(server)
    old = publish_old(server)
    leaving = crowd.gather(20, f"/events?channel=all&on_close_line={switchboard.port}")
    crowd.leave(leaving)
    lines: list[Line] = [switchboard.answer() for _ in range(4)]
    coming = crowd.join(50, "/events?channel=all", since=old[0].id)
    crowd.until_all(lambda client: len(client.events) == OLD - 1, "all have caught up", coming)
    crowd.check(old[1:], coming)
    for line in lines:
        line.close()
    switchboard.close()
    crowd.until(lambda: server.state()["reasons"][""]["client_gone"] == 20, "all is told")
