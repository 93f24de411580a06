"""What nobody is told of beforehand: a killed worker, a Redis that is away. The clients miss nothing all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.live.channels.processes import Publisher
from tests.redis_server import RedisServer
from tests.servers import Kind

from .crowd import Crowd
from .endings import Interrupted
from .lasting import GTHREAD, GTHREAD_KIND, SYNC_KIND, Lasting, check_detached, with_gunicorn

Serve = Callable[..., Lasting]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

SERVERS = pytest.mark.parametrize("kind", [GTHREAD_KIND, SYNC_KIND], ids=lambda kind: kind.name)


@SERVERS
def test_the_clients_of_a_worker_that_is_killed_go_on_with_the_next(
    kind: Kind, serve: Serve, crowd_of: Gather, publish: Publish
):
    interrupted = Interrupted(serve(kind, "sqlite"), crowd_of, publish, 100)
    [worker] = interrupted.server.workers()
    os.kill(worker, signal.SIGKILL)
    interrupted.wait_for_ends()
    interrupted.check()
    assert not any(end.retry for client in interrupted.crowd.clients for end in client.ends[:1])


def test_of_two_workers_the_clients_of_the_other_notice_nothing(serve: Serve, crowd_of: Gather, publish: Publish):
    server = serve(with_gunicorn("gthread", *GTHREAD, workers=2), "sqlite")
    server.wait_for_workers(2)
    start = server.position()
    crowd = crowd_of(server)
    crowd.gather(60, "/events?channel=all", since=start)
    while len({client.workers[0] for client in crowd.clients}) < 2:
        crowd.gather(10, "/events?channel=all", since=start)
    publisher = publish(server, "all", "--pause", "0.02")
    victim = crowd.clients[0].workers[0]
    victims = [client for client in crowd.clients if client.workers == [victim]]
    crowd.until_all(lambda client: client.events, "events come")
    os.kill(victim, signal.SIGKILL)
    crowd.until_all(lambda client: client.connections == 2 and client.following, "they have come back", victims)
    published = publisher.finish()
    crowd.until_all(lambda client: client.data[-1:] == [published[-1][1]], "the last event came")
    crowd.check(server.history("all", start, published[-1][1]))
    assert all(client.connections == 1 + (client in victims) for client in crowd.clients)


def test_while_redis_is_away_all_streams_stay_and_then_go_on_without_a_gap(
    serve: Serve, crowd_of: Gather, publish: Publish, redis_server: RedisServer
):
    server = serve(SYNC_KIND, "redis")
    start = server.position()
    crowd = crowd_of(server)
    # With comments to be seen by: that it is away is no end of anything.
    crowd.gather(100, "/events?channel=all&options={%22keep_alive%22:0.5}", since=start)
    check_detached(server, 100)
    publisher = publish(server, "all", "--pause", "0.02")
    crowd.until_all(lambda client: len(client.events) >= 10, "events come")
    redis_server.kill()
    seen = {client.number: client.comments for client in crowd.clients}
    crowd.until_all(lambda client: client.comments >= seen[client.number] + 2, "keep-alives come")
    # Those who come back now wait with the others.
    back = crowd.clients[::10]
    for client in back:
        client.leave()
        client.come()
    crowd.until_all(lambda client: client.connections == 2 and client.following, "they are there again", back)
    redis_server.start()
    wanted = {client.number: len(client.events) + 10 for client in crowd.clients}
    crowd.until_all(lambda client: len(client.events) >= wanted[client.number], "more comes")
    published = publisher.finish()
    crowd.until_all(lambda client: client.data[-1:] == [published[-1][1]], "the last event came")
    crowd.check(server.history("all", start, published[-1][1]))
    assert all(client.connections == 1 + (client in back) for client in crowd.clients)


def test_a_redis_that_comes_back_without_its_log_is_one_reset_to_each(
    serve: Serve, crowd_of: Gather, redis_server: RedisServer
):
    server = serve(GTHREAD_KIND, "redis")
    crowd = crowd_of(server)
    crowd.gather(100, "/events?channel=all")
    check_detached(server, 100)
    server.fetch("/publish?channel=all&count=20")
    crowd.until_all(lambda client: len(client.events) == 20, "events come")
    redis_server.kill()
    for file in redis_server.directory.rglob("*.aof"):
        file.unlink()
    for file in redis_server.directory.rglob("*.manifest"):
        file.unlink()
    redis_server.start()
    crowd.until_all(lambda client: client.events[-1].type == "reset", "all were told of the loss")
    server.fetch("/publish?channel=all&first=20&count=20")
    crowd.until_all(lambda client: len(client.events) == 41, "events come again")
    for client in crowd.clients:
        assert client.connections == 1
        assert [event.type for event in client.events] == [""] * 20 + ["reset"] + [""] * 20
        assert client.data[:20] + client.data[21:] == [f"all {number}" for number in range(40)]
        # What it goes on with is after the reset's own place.
        places = [event.place for event in client.events[20:]]
        assert places == sorted(set(places))
