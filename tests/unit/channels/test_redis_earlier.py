"""Processes of this version and of an earlier one, which has neither closed channels nor runs, with the same keys."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from ssesync import Broker, ChannelClosed, open_broker
from ssesync.channels.entry import CLOSED
from tests.redis_server import RedisServer

from .conftest import numbered, published, texts
from .redis_earlier import EarlierProcess
from .runs.test_contract import add, append, event, final
from .test_closing import begin, data, page
from .test_contract import place


@pytest.fixture
def prefix() -> str:
    return f"earlier-{uuid.uuid4().hex}"


@pytest.fixture
def earlier(redis_server: RedisServer, prefix: str) -> Iterator[EarlierProcess]:
    process = EarlierProcess(redis_server.url, prefix)
    yield process
    process.close()


@pytest.fixture
def broker(redis_server: RedisServer, prefix: str) -> Iterator[Broker]:
    with open_broker(redis_server.url, prefix=prefix) as broker:
        yield broker


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def test_a_log_of_an_earlier_version_is_gone_on_with(broker: Broker, earlier: EarlierProcess) -> None:
    start = earlier.publish("a", "0")
    for number in (1, 2):
        earlier.publish("a", str(number))
    assert data(page(broker, start, "a")) == ["1", "2"]
    with broker.subscribe("a", last_event_id=start) as subscription:
        earlier.publish("a", "3")
        assert texts(subscription, 3) == ["1", "2", "3"]
    assert begin(broker, "a") == numbered(4)
    assert broker.channel_of(start) == "a"
    add(broker)
    append(broker, event(1), final())
    broker.publish("a", "4", final=True)
    assert begin(broker, "a") == numbered(5)
    assert begin(broker, "r", "a") == ["1", "done", "4"]


def test_both_append_to_a_channel_and_trim_it(
    broker: Broker, earlier: EarlierProcess, redis_server: RedisServer
) -> None:
    with open_broker(redis_server.url, prefix=broker._prefix[1:-1], max_events=6, max_bytes=100) as small:
        start = small.position()
        for number in range(20):
            if number % 2:
                small.publish("a", str(number))
            else:
                earlier.publish("a", str(number), max_events=6, max_bytes=100)
        assert begin(small, "a") == numbered(6, 14)
        assert page(small, start, "a").lost == earlier.read(start, "a") == "trimmed"
        small.publish("a", "x" * 60)
        assert begin(small, "a") == ["17", "18", "19", "x" * 60]  # 10 bytes each, beside the 68 of this one
        earlier.publish("a", "x" * 60, max_events=6, max_bytes=100)
        assert begin(small, "a") == ["x" * 60]


def test_redis_refuses_what_an_earlier_version_appends_to_a_closed_channel(
    broker: Broker, earlier: EarlierProcess
) -> None:
    start = earlier.publish("a", "first")
    last = broker.publish("a", "last", final=True)
    with pytest.raises(redis.ResponseError, match=r"last possible ID|equal or smaller"):
        earlier.publish("a", "x")
    assert broker.position() == last
    earlier.publish("b", "y")
    assert earlier.read(start, "a", "b") == ["last", "y"]
    assert earlier.changed(start) == {"a", "b"}
    assert earlier.read(last, "a") == []
    assert page(broker, start, "a").closed == {"a": place(last)[1]}
    assert begin(broker, "a", "b") == ["first", "last", "y"]


def test_an_earlier_version_removes_a_closed_channel_as_any_other(broker: Broker, earlier: EarlierProcess) -> None:
    start = broker.publish("a", "first")
    broker.publish("a", "last", final=True)
    later, _ = [earlier.publish(name, "x", max_channels=2) for name in "bc"]
    assert not broker.has_channel("a")
    assert page(broker, start, "a").lost == earlier.read(start, "a") == "trimmed"
    assert earlier.publish("a", "of another channel")
    assert data(page(broker, later, "a")) == ["of another channel"]
    broker.publish("a", "again", final=True)
    with pytest.raises(ChannelClosed):
        broker.publish("a", "x")


def test_an_earlier_version_can_neither_write_into_a_run_nor_remove_it(
    broker: Broker, earlier: EarlierProcess, admin: redis.Redis, prefix: str
) -> None:
    add(broker)  # the first of all: the earlier version must not take the log for one that has lost its channels
    append(broker, event(1))
    start = earlier.publish("a", "x")
    assert place(start)[0] == place(broker.position())[0]
    keys = admin.keys(f"*{prefix}*")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        earlier.publish("r", "x")
    assert admin.keys(f"*{prefix}*") == keys
    for number in range(50):
        earlier.publish(f"c{number}", "x", max_channels=1)
    assert append(broker, event(2), final()) > [0, 0]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        earlier.publish("r", "x")
    assert begin(broker, "r") == ["1", "2", "done"]
    assert earlier.read(broker.position(), "r", "c49") == []
    assert earlier.publish("a", "y") > start


def test_where_an_earlier_version_begins_a_new_epoch_the_runs_are_unknown(
    broker: Broker, earlier: EarlierProcess, admin: redis.Redis, prefix: str
) -> None:
    published(broker, "b", "x")
    add(broker)
    append(broker, event(1))
    add(broker, "r2")
    append(broker, event(1, "r2"), final(name="r2"))
    admin.delete(f"{{{prefix}}}:tails")
    start = earlier.publish("a", "x")
    assert broker._find_run("r") is broker._find_run("r2") is None
    assert append(broker, event(2), final(), event(2, "r2")) == [CLOSED] * 3
    assert earlier.publish("r2", "now a channel")
    assert broker._abandoned() == []
    add(broker, owner="you")
    assert append(broker, event(1, owner="you")) > [0]
    assert begin(broker, "r", "r2", "a") == ["1"]
    assert begin(broker, "r2", "a") == ["x", "now a channel"]
    assert broker._renew_owner("me", 60) is False
    assert data(page(broker, start, "r2")) == ["now a channel"]
