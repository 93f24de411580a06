"""What a process publishes reaches the clients of all workers: all of it, in order, once."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from ssesync import StatusError, open_broker
from tests.live.streams.nginx import nginx_with
from tests.redis_server import RedisServer

from .followers import Crowd
from .processes import Gunicorn, Publisher, await_that, lasting_port

Serve = Callable[..., Gunicorn]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

FOUR = ("--workers", "4", "--worker-class", "gthread")
BROKERS = pytest.mark.parametrize("kind", ["sqlite", "redis"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("sqlite", FOUR, id="sqlite"),
        pytest.param("redis", FOUR, id="redis"),
        pytest.param("redis", ("--workers", "2", "--worker-class", "gevent"), id="redis-gevent"),
    ],
)
def test_twenty_clients_of_all_workers_get_all_of_their_channels_once_and_in_order(
    kind: str, options: tuple[str, ...], serve: Serve, crowd_of: Gather, publish: Publish
):
    crowd = crowd_of(serve(kind, *options))
    crowd.join(20)
    crowd.spread()
    published = publish(crowd, "--count", "1000").finish()
    log = crowd.check(*published)
    assert [(event.id, event.data) for event in log] == published
    assert len(published) == 1000 + len(crowd.channels)


@BROKERS
def test_a_client_that_connects_during_a_burst_gets_all_events_after_its_id(
    kind: str, serve: Serve, crowd_of: Gather, publish: Publish
):
    crowd = crowd_of(serve(kind, *FOUR))
    publisher = publish(crowd)
    publisher.wait_for(300)
    crowd.join(8)
    for follower in crowd.join(8):
        follower.source.restart()
    crowd.check(*publisher.finish())


@BROKERS
def test_revoking_ends_the_streams_of_a_key_in_all_workers_and_they_stay_away(
    kind: str, serve: Serve, crowd_of: Gather, publish: Publish
):
    server = serve(kind, *FOUR)
    crowd, others = crowd_of(server), crowd_of(server)
    key = uuid.uuid4().hex
    crowd.join(8, key=key)
    crowd.spread()
    others.join(4, key="another")
    (server.refused / key).touch()
    server.fetch(f"/revoke?key={key}", post=True)
    await_that(lambda: all(follower.over for follower in crowd.followers), "all streams of the key ended")
    for follower in crowd.followers:
        assert isinstance(follower.error, StatusError)
        assert follower.error.response.status_code == 403
    assert not any(follower.over for follower in others.followers)
    others.check(*publish(others, "--count", "20").finish())
    assert all(len(follower.workers) == 1 for follower in others.followers)


@BROKERS
def test_presence_counts_over_all_processes(kind: str, serve: Serve, crowd_of: Gather):
    crowd = crowd_of(serve(kind, *FOUR))
    wanted = crowd.channels[0]
    with open_broker(crowd.server.broker) as broker:
        assert broker.subscriber_count(wanted) == 0
        crowd.join(8)
        crowd.spread()
        listed = [follower for follower in crowd.followers if wanted in follower.channels]
        assert len(listed) > 1
        await_that(lambda: broker.subscriber_count(wanted) == len(listed), "all are counted")
        with broker.subscribe(wanted):
            # One that has moved may be counted twice for a moment.
            await_that(lambda: broker.subscriber_count(wanted) == len(listed) + 1, "this one is counted too")
            assert broker.subscriber_count(wanted, local=True) == 1
        crowd.stop()
        await_that(lambda: broker.subscriber_count(wanted) == 0, "nobody is counted any more")


def test_five_hundred_subscribers_of_a_process_are_two_connections(redis_server: RedisServer):
    name = uuid.uuid4().hex
    channels = [f"{number % 50}" for number in range(500)]
    with (
        redis.Redis(port=redis_server.port) as client,
        open_broker(redis_server.url, prefix=name, client_name=name) as broker,
    ):

        def connections() -> int:
            return sum(each["name"] == name for each in client.client_list())

        subscriptions = [broker.subscribe(channel, "all") for channel in channels]
        broker.publish("7", "to ten")
        broker.publish("all", "to all")
        for channel, subscription in zip(channels, subscriptions, strict=True):
            for text in ["to ten", "to all"] if channel == "7" else ["to all"]:
                event = subscription.get(30)
                assert event is not None
                assert event.data == text
        assert connections() == 2
        # And where they read the log.
        replaying = [broker.subscribe("all", last_event_id=f"{broker.position()}") for _ in range(20)]
        assert [subscription.get(0) for subscription in replaying] == [None] * 20
        assert connections() == 2
    assert connections() == 0


@pytest.fixture
def nginx(serve: Serve, tmp_path: Path) -> Iterator[tuple[str, Gunicorn]]:
    """The address of streams behind an nginx that nothing was told, and the server."""
    server, port = serve("sqlite", *FOUR), lasting_port()
    front = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{server.port}; }} }}"
    with nginx_with(tmp_path, front):
        yield f"http://127.0.0.1:{port}/events", server


def test_behind_nginx_each_event_arrives_before_the_next_is_published_and_a_killed_worker_causes_no_gap(
    nginx: tuple[str, Gunicorn], crowd_of: Gather, publish: Publish
):
    url, server = nginx
    crowd = crowd_of(server)
    crowd.join(6, url)
    with open_broker(server.broker) as broker:
        for number in range(20):
            for channel in crowd.channels:
                broker.publish(channel, f"{channel} {number}")
            await_that(
                lambda: all(follower.data[-1:] and f" {number}" in follower.data[-1] for follower in crowd.followers),  # noqa: B023
                "the newest event is there",
            )
    publisher = publish(crowd, "--pause", "0.001")
    publisher.wait_for(100)
    victim = crowd.followers[0].workers[-1]
    os.kill(victim, 9)
    crowd.wait_for(20)
    crowd.check(*publisher.finish())
    assert victim not in {follower.workers[-1] for follower in crowd.followers}
