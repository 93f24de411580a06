"""What comes when nothing is published: keep-alives, a lifetime's end, the loss of a right. And who is present."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from ssesync import open_broker
from tests.servers import Kind

from .crowd import Crowd
from .endings import check_clean_ends
from .lasting import ALL, AT_ONCE, GTHREAD_KIND, RUNSERVER_KIND, SYNC_KIND, Lasting, check_detached

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]

EACH = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)


def path(**options: Any) -> str:
    return f"/events?channel=all&options={quote(json.dumps(options))}"


@pytest.mark.parametrize("kind", [SYNC_KIND, RUNSERVER_KIND], ids=lambda kind: kind.name)
def test_each_of_a_hundred_clients_gets_its_keep_alives(kind: Kind, serve: Serve, crowd_of: Gather):
    server = serve(kind)
    crowd = crowd_of(server)
    count = 40 if kind.name in AT_ONCE else 100
    crowd.gather(count, path(keep_alive=0.5))
    check_detached(server, count)
    # The first comment is the opening.
    crowd.until_all(lambda client: client.comments >= 4, "keep-alives came")
    server.fetch("/publish?channel=all")
    crowd.until_all(lambda client: client.events, "the event came")
    assert all(client.connections == 1 for client in crowd.clients)
    # None comes twice as often as it should: a busy machine makes fewer of them, never more.
    ages = [stream["age"] for stream in server.state()["streams"]]
    assert max(client.comments for client in crowd.clients) <= max(ages) / 0.5 + 2
    crowd.leave()
    crowd.until(lambda: not server.state()["streams"], "all streams are closed")
    assert server.state()["keep_alives"] >= 3 * count


def test_a_lifetime_that_is_over_is_a_clean_end_and_no_gap(serve: Serve, crowd_of: Gather):
    server = serve(SYNC_KIND, "sqlite")
    start = server.position()
    crowd = crowd_of(server)
    # On a slow machine some may have come back before the last has come.
    crowd.join(100, path(max_lifetime=1.5), since=start)
    crowd.until_all(lambda client: client.following, "all streams have begun")
    assert {stream["tier"] for stream in server.state()["streams"]} == {"detached"}
    number = 0

    def all_have_come_back() -> bool:
        nonlocal number
        server.fetch(f"/publish?channel=all&first={number}")
        number += 1
        return all(client.connections > 1 for client in crowd.clients)

    crowd.until(all_have_come_back, "all have come back")
    last = f"all {number - 1}"
    crowd.until_all(lambda client: client.data[-1:] == [last], "the last event came")
    crowd.check(server.history("all", start, last))
    check_clean_ends(crowd.clients)
    assert set(server.state()["closed"]) == {"lifetime"}


@EACH
def test_revoking_ends_the_streams_of_a_key_and_no_other(kind: Kind, serve: Serve, crowd_of: Gather):
    server = serve(kind)
    crowd = crowd_of(server)
    count = 20 if kind.name in AT_ONCE else 50
    theirs = crowd.gather(count, path() + "&key=ada", returns=False)
    others = crowd.gather(count, path() + "&key=bob")
    check_detached(server, 2 * count)
    server.fetch("/publish?channel=all&first=0")
    crowd.until_all(lambda client: client.events, "the event came")
    server.fetch("/revoke?key=ada")
    server.fetch("/publish?channel=all&first=1")
    crowd.until_all(lambda client: client.ends, "the streams of the key ended", theirs)
    crowd.until_all(lambda client: len(client.events) == 2, "the next event came", others)
    assert all(client.data == ["all 0"] for client in theirs)
    assert not any(client.ends for client in others)
    crowd.until(lambda: server.state()["reasons"] == {"ada": {"revoked": count}}, "the streams are closed")
    check_detached(server, count)


def test_connected_clients_are_counted_and_departed_ones_are_not(serve: Serve, crowd_of: Gather):
    server = serve(GTHREAD_KIND, "redis")
    crowd = crowd_of(server)
    crowd.gather(50, path() + "&channel=other")
    crowd.gather(50, path())
    check_detached(server, 100)
    assert server.state(channel="all")["present"] == 100
    assert server.state(channel="other")["present"] == 50
    with open_broker(server.broker) as elsewhere:
        crowd.until(lambda: elsewhere.subscriber_count("all") == 100, "they count in other processes")
        crowd.leave(crowd.clients[:25], "rst")
        crowd.leave(crowd.clients[25:75])
        crowd.until(lambda: server.state(channel="all")["present"] == 25, "those who left do not count")
        assert server.state(channel="other")["present"] == 0
        crowd.until(lambda: elsewhere.subscriber_count("all") == 25, "nor in other processes")
        assert elsewhere.subscriber_count("other") == 0
    check_detached(server, 25)
