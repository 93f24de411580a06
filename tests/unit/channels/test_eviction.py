"""Keys of ours that Redis evicts, whichever: who resumes or listens gets every event, or is told by one reset."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ssesync import CloseReason, Event, Subscription, open_broker
from tests.redis_server import RedisServer

from .conftest import got, numbered, published, texts
from .test_contract import place

CHANNELS = ("a", "b", "c:1", "c:2")


class Log:
    """A log in a real Redis, and what was published to it."""

    def __init__(self, server: RedisServer) -> None:
        self.prefix = f"evict-{uuid.uuid4().hex}"
        self.url = f"{server.url}?prefix={self.prefix}"
        self.broker = open_broker(self.url)
        self.admin = redis.Redis.from_url(server.url, decode_responses=True)
        self.published: list[tuple[str, str]] = []  # id, channel

    def publish(self, *channels: str) -> None:
        self.published += [(self.broker.publish(channel, "x"), channel) for channel in channels]

    def keys(self) -> list[str]:
        return sorted(self.admin.keys(f"{{{self.prefix}}}:*"))

    def evict(self, *names: str) -> None:
        self.admin.delete(*(f"{{{self.prefix}}}:{name}" for name in names))

    def close(self) -> None:
        self.broker.close()
        self.admin.close()

    def check(self, subscription: Subscription, after: int, wanted: list[str]) -> int:
        """What a subscription gets that begins after the n-th event, up to the newest; how many resets those were."""
        due = [each for each, channel in self.published[after + 1 :] if channel in wanted]
        seen: list[Event] = []
        while due and (not seen or seen[-1].id != due[-1]):
            event = subscription.get(10)
            assert event is not None, f"{len(seen)} of {len(due)} events came, and no reset"
            seen.append(event)
            if event.type == "reset":
                # Its place is one of an event, or before the first of a log that was begun anew.
                ids = [each for each, _ in self.published]
                reached = ids.index(event.id) if event.id in ids else self.begun_anew(event)
                due = [event.id or "", *(each for each, channel in self.published[reached + 1 :] if channel in wanted)]
                seen = [event]
                if len(due) == 1:
                    break
        resets = sum(event.type == "reset" for event in seen)
        assert [event.id for event in seen] == due
        return resets

    def begun_anew(self, reset: Event) -> int:
        """The place in what was published of a reset that comes before all events of its epoch."""
        epoch, seq = place(reset.id)
        assert all(place(each)[1] > seq for each, _ in self.published if place(each)[0] == epoch)
        return next(
            (n - 1 for n, (each, _) in enumerate(self.published) if place(each)[0] == epoch), len(self.published) - 1
        )


@pytest.fixture
def log(redis_server: RedisServer) -> Iterator[Log]:
    log = Log(redis_server)
    yield log
    log.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ["log:a"], ["info:a"], ["log:a", "info:a"], ["index"], ["tails"], ["meta"], ["meta", "index"],
        ["tails", "index"], ["tails", "log:a"], ["meta", "tails"], ["index", "info:a"], ["meta", "index", "tails"],
    ],
    ids="+".join,
)  # fmt: skip
@pytest.mark.parametrize("more", [0, 1], ids=["", "and then one more is published"])
def test_a_resume_after_these_keys_are_gone_gets_all_or_one_reset(log: Log, names: list[str], more: int) -> None:
    log.publish(*"aabbab")
    log.evict(*names)
    log.publish(*"a" * more)
    for channels, patterns in ((["a"], []), (["b"], []), (["a", "b"], []), ([], ["*"])):
        with log.broker.subscribe(*channels, patterns=patterns, last_event_id=log.published[1][0]) as subscription:
            assert log.check(subscription, 1, channels or ["a", "b"]) <= 1
            log.broker.publish("b", "live")
            log.published.append((log.broker.position(), "b"))
            if "b" in channels or patterns:
                assert texts(subscription, 1) == ["live"]
            assert subscription.get(0) is None


def test_what_was_not_evicted_is_replayed(log: Log) -> None:
    log.publish(*"ababab")
    log.evict("log:b", "index")
    with log.broker.subscribe("a", last_event_id=log.published[0][0]) as subscription:
        assert log.check(subscription, 0, ["a"]) == 0
    with log.broker.subscribe("b", last_event_id=log.published[5][0]) as subscription:  # it has all of them
        assert subscription.get(0) is None
        log.publish("b")
        assert log.check(subscription, 5, ["b"]) == 0


@pytest.mark.slow
def test_whatever_is_evicted_clients_get_all_or_one_reset(redis_server: RedisServer) -> None:
    told = 0
    for seed in range(60):
        chance = random.Random(seed)
        log = Log(redis_server)
        try:
            log.publish(*chance.choices(CHANNELS, k=chance.randint(4, 12)))
            start = len(log.published) - 1
            live = log.broker.subscribe("a", patterns=["c:*"], patience=60)
            for _ in range(chance.randint(1, 3)):
                log.publish(*chance.choices(CHANNELS, k=chance.randint(0, 4)))
                if keys := log.keys():
                    log.admin.delete(*chance.sample(keys, chance.randint(1, len(keys))))
            log.publish(*chance.choices(CHANNELS, k=chance.randint(1, 4)))
            for _ in range(3):
                after = chance.randrange(len(log.published))
                wanted = chance.choice((["a"], ["b", "c:1"], ["a", "c:1", "c:2"]))
                patterns = ["c:*"] if "c:2" in wanted else []
                names = [name for name in wanted if not patterns or name == "a"]
                with log.broker.subscribe(*names, patterns=patterns, last_event_id=log.published[after][0]) as resuming:
                    told += log.check(resuming, after, wanted)
            log.publish("a")
            log.check(live, start, ["a", "c:1", "c:2"])
            live.close()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            log.close()
    assert told > 10


@pytest.fixture
def small_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "--save", "", "--maxmemory", "4mb", "--maxmemory-policy", request.param)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "maxmemory-policy" in record.getMessage()]


@pytest.mark.slow
@pytest.mark.parametrize("small_server", ["allkeys-lru"], indirect=True)
def test_a_full_server_evicts_and_clients_get_a_reset(
    small_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with open_broker(small_server.url) as broker:
        ids = published(broker, "a", *numbered(20))
        with broker.subscribe("b"), caplog.at_level(logging.WARNING, "ssesync"):
            for n in range(600):
                broker.publish(f"c{n}", "x" * 10_000)
        with redis.Redis.from_url(small_server.url) as admin:
            assert admin.info("stats")["evicted_keys"] > 100
        with broker.subscribe("a", last_event_id=ids[9]) as subscription:
            (first,) = got(subscription, 1)
            assert first.type == "reset" or [first.data, *texts(subscription, 9)] == numbered(10, 10)
    assert len(warnings(caplog)) <= 1


@pytest.mark.parametrize(
    ("small_server", "told"),
    [("allkeys-lru", "deletes events"), ("volatile-ttl", "record of used tickets"), ("noeviction", "")],
    indirect=["small_server"],
)
def test_a_policy_that_evicts_is_warned_of_once(
    small_server: RedisServer, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ssesync"), open_broker(small_server.url) as broker:
        published(broker, "a", "1", "2")
        broker.subscribe("a").close()
    if told:
        (warning,) = warnings(caplog)
        assert told in warning
        assert "noeviction" in warning
    else:
        assert warnings(caplog) == []


def test_a_user_that_may_not_ask_for_the_policy_is_no_reason_to_fail(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "quiet", "on", ">secret", "~*", "-@all", "+@read", "+@write", "+@scripting", "+time",
            "+@connection", "-@dangerous",
        )  # fmt: skip
        url = redis_server.url.replace("redis://", "redis://quiet:secret@")
        with open_broker(url, prefix=uuid.uuid4().hex) as broker:
            assert broker.publish("a", "x")


def test_a_channel_whose_events_are_evicted_and_that_the_log_does_not_know_takes_events(log: Log) -> None:
    log.publish("a", "a")
    log.evict("meta", "tails", "index")  # a's events are there still, and nobody knows of them
    log.publish("b", "a")
    with log.broker.subscribe("a", last_event_id=log.published[2][0]) as subscription:
        assert log.check(subscription, 2, ["a"]) == 0


@pytest.mark.parametrize("gone", [["log:\x01control"], ["info:\x01control"], ["meta"]])
def test_where_a_revocation_is_evicted_before_it_is_read_all_that_have_a_key_end(
    log: Log, gone: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with open_broker(log.url) as other:
        ada, anyone = other.subscribe("a", key="ada"), other.subscribe("a")
        with other._following._lock:  # type: ignore[attr-defined]
            log.broker.revoke("ada")
            log.evict(*gone)
            log.publish("a")
        assert ada.take(30) is None
        assert ada.reason is CloseReason.REVOKED
        assert anyone.take(30)
        assert not anyone.closed
    assert "ended 1 subscriptions that have a key" in caplog.text
