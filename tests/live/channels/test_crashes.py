"""``kill -9``, in the middle, of a worker, of the process that publishes, of Redis: the clients miss nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from ssesync import Event
from tests.redis_server import FORGETFUL, RedisServer

from .followers import Crowd, check_same
from .processes import Gunicorn, Publisher, await_that

Serve = Callable[..., Gunicorn]
Gather = Callable[..., Crowd]
Publish = Callable[..., Publisher]

FOUR = ("--workers", "4", "--worker-class", "gthread")
TWO = ("--workers", "2", "--worker-class", "gthread")
# Between two events; so that a test's worth of them fits into the log, however slow the machine is.
PAUSE = ("--pause", "0.001")
BROKERS = pytest.mark.parametrize("kind", ["sqlite", "redis"])


@BROKERS
def test_a_worker_that_is_killed_is_no_gap_to_its_clients(kind: str, serve: Serve, crowd_of: Gather, publish: Publish):
    crowd = crowd_of(serve(kind, *FOUR))
    crowd.join(8)
    crowd.spread()
    publisher = publish(crowd, *PAUSE)
    crowd.wait_for(20)
    before = [follower.workers.copy() for follower in crowd.followers]
    victim = before[0][-1]
    os.kill(victim, signal.SIGKILL)
    crowd.wait_for(20)
    crowd.check(*publisher.finish())
    for follower, workers in zip(crowd.followers, before, strict=True):
        assert (len(follower.workers) > len(workers)) == (workers[-1] == victim)
        assert follower.workers[-1] != victim


@BROKERS
def test_of_a_publisher_that_is_killed_nothing_is_lost_that_publish_returned_for_and_its_successor_goes_on(
    kind: str, serve: Serve, crowd_of: Gather, publish: Publish
):
    crowd = crowd_of(serve(kind, *FOUR))
    crowd.join(8)
    other = publish(crowd, *PAUSE)
    published = []
    for _ in range(2):
        publisher = publish(crowd)
        publisher.wait_for(50)
        published += publisher.kill()
    victims = len(published)
    published += publish(crowd, "--count", "50", "--no-end").finish()
    published += other.finish()
    log = crowd.check(*published)
    # An event that was being published when its process was killed may be there or not.
    assert len(published) <= len(log) <= len(published) + 2
    assert victims >= 100


def test_while_redis_is_away_for_seconds_everybody_waits_and_then_goes_on_without_a_gap(
    serve: Serve, crowd_of: Gather, publish: Publish, redis_server: RedisServer
):
    crowd = crowd_of(serve("redis", *FOUR))
    crowd.join(6)
    publisher = publish(crowd, *PAUSE)
    crowd.wait_for(20)
    redis_server.kill()
    # Those who come now are told to come again.
    crowd.followers[0].source.restart()
    time.sleep(3)
    assert publisher.process.poll() is None
    redis_server.start()
    crowd.wait_for(20)
    crowd.check(*publisher.finish())


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("forgetful"), *FORGETFUL) as server:
        yield server


@pytest.mark.parametrize("keeps", ["nothing", "older state"])
def test_a_redis_that_comes_back_without_its_log_is_one_reset_to_each_client(
    keeps: str, started: Callable[..., Gunicorn], crowd_of: Gather, publish: Publish, forgetful: RedisServer
):
    crowd = crowd_of(started("forgetful", forgetful.url, *TWO))
    crowd.join(6)
    publisher = publish(crowd, *PAUSE)
    crowd.wait_for(20)
    if keeps == "older state":
        with redis.Redis(port=forgetful.port) as client:
            client.save()
        crowd.wait_for(20)
    else:
        (forgetful.directory / "dump.rdb").unlink(missing_ok=True)
    forgetful.kill()
    before = publisher.published
    forgetful.start()
    await_that(lambda: all(follower.resets for follower in crowd.followers), "all were told of the loss")
    # Whoever comes back later is told nothing of it any more.
    crowd.followers[0].source.restart()
    crowd.wait_for(20)
    publisher.finish()
    crowd.wait_for_the_end()
    for follower in crowd.followers:
        (place,) = follower.resets
        check_is_beginning(follower.events[:place], [event for event in before if follower.wants(event[1])])
        log = crowd.log(after=follower.events[place].id or "")
        check_same(follower.events[place + 1 :], [event for event in log if follower.wants(event.data or "")])


def check_is_beginning(came: list[Event], published: list[tuple[str, str]]) -> None:
    """Fail unless these were published at first. Of the one after them publish() may not have returned."""
    pairs = [(event.id, event.data) for event in came]
    assert len(pairs) <= len(published) + 1
    assert pairs[: len(published)] == published[: len(pairs)]
