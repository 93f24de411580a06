"""Clients that read slowly or not at all: what becomes of them is their policy's choice, and nobody else's loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from ..apps.texts import KINDS_OF_EVENTS, event_data, number_of
from .clients import Came, Client
from .crowd import Crowd
from .lasting import GTHREAD_KIND, SYNC_KIND, Lasting, check_detached

#: An event's bytes, so that a few hundred of them are more than all buffers take.
SIZE = 2_000
BUFFER = 4_096
SMALL = {"max_pending_events": 64, "max_pending_bytes": 65_536, "keep_alive": 60}


def path(**options: Any) -> str:
    return f"/events?channel=all&options={quote(json.dumps({**SMALL, **options}))}"


class Publishing:
    """Events published by the process that serves, with the crowd reading meanwhile."""

    def __init__(self, server: Lasting, crowd: Crowd) -> None:
        self._server = server
        self._crowd = crowd
        self.events: list[Came] = []

    def publish(self, count: int) -> None:
        first = len(self.events)
        came: list[bytes] = []
        request = f"/publish?channel=all&first={first}&count={count}&size={SIZE}"
        self._crowd.call(iter([(request, came.append)]))
        self._crowd.until(lambda: came, "all are published")
        ids = came[0].decode().split()
        self.events += [
            Came(each, "", event_data("all", first + number, SIZE)) for number, each in enumerate(ids)
        ]  # fmt: skip
        assert len(self.events) == first + count

    def wait_for_the_last(self, clients: list[Client]) -> None:
        self._crowd.until_all(lambda client: client.data[-1:] == [self.events[-1].data], "all has come", clients)


BOTH = pytest.mark.parametrize(
    "server",
    [pytest.param(GTHREAD_KIND, marks=pytest.mark.matrix), SYNC_KIND],
    ids=lambda kind: kind.name,
    indirect=True,
)


@pytest.fixture
def server(request: pytest.FixtureRequest, serve: Callable[..., Lasting]) -> Lasting:
    return serve(getattr(request, "param", GTHREAD_KIND))


@BOTH
def test_of_200_clients_exactly_the_20_that_do_not_read_are_closed_and_they_too_miss_nothing_when_they_come_back(
    server: Lasting, crowd_of: Callable[..., Crowd]
):
    crowd = crowd_of(server)
    reading = crowd.gather(180, path(patience=2) + "&key=reading")
    stuck = crowd.gather(10, path(patience=2) + "&key=stuck", receive_buffer=BUFFER)
    # To whom the connection's end would look like the stream's, so it must be a reset.
    stuck += crowd.gather(10, path(patience=2) + "&key=stuck", receive_buffer=BUFFER, version="1.0")
    check_detached(server, 200)
    publishing = Publishing(server, crowd)
    # With its id all can come back.
    publishing.publish(1)
    publishing.wait_for_the_last(crowd.clients)
    for client in stuck:
        client.pause()
    publishing.publish(150)
    publishing.wait_for_the_last(reading)

    def all_are_given_up() -> bool:
        # What the log has anyway counts only against one that has not looked for a while.
        publishing.publish(1)
        return sum(server.state()["closed"].values()) == 20

    crowd.until(all_are_given_up, "those who do not read are closed")
    reasons = server.state()["reasons"]
    assert set(reasons) == {"stuck"}
    assert set(reasons["stuck"]) <= {"overflow", "stalled"}
    publishing.wait_for_the_last(reading)
    check_detached(server, 180)
    for client in stuck:
        client.go_on()
    publishing.wait_for_the_last(stuck)
    crowd.check(publishing.events)
    assert all(client.connections == 1 for client in reading)
    assert all(client.connections == 2 for client in stuck)
    assert all(client.ends[0].how in ("reset", "cut") for client in stuck)


def test_slow_readers_catch_up_from_the_log_and_are_never_closed(server: Lasting, crowd_of: Callable[..., Crowd]):
    crowd = crowd_of(server)
    slow = crowd.gather(20, path(patience=10), receive_buffer=BUFFER, pace=4_096)
    fast = crowd.gather(30, path(patience=10))
    check_detached(server, 50)
    publishing = Publishing(server, crowd)
    for _ in range(3):
        publishing.publish(100)
    publishing.wait_for_the_last(fast)
    # All the buffers there are don't hold what is left.
    assert any(client.data[-1:] != [publishing.events[-1].data] for client in slow)
    publishing.wait_for_the_last(slow)
    crowd.check(publishing.events)
    assert all(client.connections == 1 for client in crowd.clients)
    assert server.state()["closed"] == {}


def publish_while_paused(publishing: Publishing, stuck: list[Client], reading: list[Client]) -> None:
    """Publish far more than the buffers hold while some clients read nothing; then wait until they have read on."""
    for client in stuck:
        client.pause()
    for _ in range(10):
        publishing.publish(30)
        publishing.wait_for_the_last(reading)
    for client in stuck:
        client.go_on()
    publishing.wait_for_the_last(stuck)


def test_with_drop_oldest_each_gap_is_reported_exactly(server: Lasting, crowd_of: Callable[..., Crowd]):
    crowd = crowd_of(server)
    stuck = crowd.gather(10, path(overflow="drop_oldest"), receive_buffer=BUFFER)
    reading = crowd.gather(10, path(overflow="drop_oldest"))
    check_detached(server, 20)
    publishing = Publishing(server, crowd)
    for _ in range(2):
        publish_while_paused(publishing, stuck, reading)
    for client in crowd.clients:
        assert client.connections == 1
        following = 0
        for event in client.events:
            if event.type == "dropped":
                following += json.loads(event.data)["count"]
            else:
                assert event == publishing.events[following], (client, following)
                following += 1
        assert following == len(publishing.events)
    assert all(sum(event.type == "dropped" for event in client.events) >= 2 for client in stuck)
    assert server.state()["closed"] == {}


def test_where_events_are_coalesced_the_newest_of_each_kind_comes(server: Lasting, crowd_of: Callable[..., Crowd]):
    crowd = crowd_of(server)
    stuck = crowd.gather(10, path(overflow="coalesce"), receive_buffer=BUFFER)
    reading = crowd.gather(10, path(overflow="coalesce"))
    check_detached(server, 20)
    publishing = Publishing(server, crowd)
    publish_while_paused(publishing, stuck, reading)
    known = set(publishing.events)
    for client in crowd.clients:
        assert client.connections == 1
        assert set(client.events) <= known
        places = [event.place for event in client.events]
        assert places == sorted(set(places))
        newest = {number_of(event.data) % KINDS_OF_EVENTS: event for event in client.events}
        assert set(newest.values()) == set(publishing.events[-KINDS_OF_EVENTS:])
    assert all(len(client.events) < len(publishing.events) for client in stuck)
    assert server.state()["closed"] == {}


def test_a_client_that_accepts_no_bytes_for_send_timeout_is_closed_as_stalled_without_overflow(
    server: Lasting, crowd_of: Callable[..., Crowd]
):
    crowd = crowd_of(server)
    options = path(overflow="drop_oldest", send_timeout=2.5)
    reading = crowd.gather(10, options + "&key=reading")
    stuck = crowd.gather(10, options + "&key=stuck", receive_buffer=BUFFER, returns=False)
    check_detached(server, 20)
    for client in stuck:
        client.pause()
    publishing = Publishing(server, crowd)
    for _ in range(10):
        publishing.publish(30)
        publishing.wait_for_the_last(reading)
    crowd.until(lambda: sum(server.state()["closed"].values()) == 10, "those who take nothing are closed")
    assert server.state()["reasons"] == {"stuck": {"stalled": 10}}
    publishing.publish(1)
    publishing.wait_for_the_last(reading)
    assert all(client.connections == 1 for client in reading)
