"""Keys of ours that Redis evicts, whichever: who resumes or listens gets every event, or is told by one reset."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ssesync import ChannelClosed, CloseReason, Event, Subscription, open_broker
from ssesync.channels.entry import CLOSED
from ssesync.channels.runs.record import RunState
from tests.redis_server import RedisServer

from .conftest import got, numbered, published, texts
from .runs.test_contract import add, append, event, final, record
from .test_closing import begin, data, page
from .test_contract import eventually, place

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

    def keys_of(self, name: str) -> list[str]:
        return [key for key in self.keys() if key.endswith(f":{name}")]

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
    checked = 0
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
                    checked += log.check(resuming, after, wanted)
            log.publish("a")
            log.check(live, start, ["a", "c:1", "c:2"])
            live.close()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            log.close()
    assert checked > 10


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
    ("small_server", "warned"),
    [("allkeys-lru", "deletes events"), ("volatile-ttl", "record of used tickets"), ("noeviction", "")],
    indirect=["small_server"],
)
def test_a_policy_that_evicts_is_warned_of_once(
    small_server: RedisServer, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ssesync"), open_broker(small_server.url) as broker:
        published(broker, "a", "1", "2")
        broker.subscribe("a").close()
    if warned:
        (warning,) = warnings(caplog)
        assert warned in warning
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


# Channels that are closed, and runs.


@pytest.mark.parametrize("names", [["log:a"], ["info:a"], ["log:a", "info:a"], ["index"], ["log:a", "info:a", "index"]],
                         ids="+".join)  # fmt: skip
def test_a_closed_channel_stays_closed_whatever_of_it_is_evicted(log: Log, names: list[str]) -> None:
    log.publish("a")
    last = log.broker.publish("a", "last", final=True)
    log.evict(*names)
    for action in (lambda: log.publish("a"), lambda: log.broker.publish("a", "x", final=True)):
        with pytest.raises(ChannelClosed):
            action()
    found = page(log.broker, log.published[0][0], "a")
    assert found.closed == log.broker.start_of(["a"], [], None).closed == {"a": place(last)[1]}
    assert found.lost == ("" if names == ["index"] else "trimmed")
    assert begin(log.broker, "a") == (["x", "last"] if names == ["index"] else [])


def ended(log: Log) -> None:
    """End what is left of runs, as processes that are alive do."""
    for _ in range(3):
        found = log.broker._abandoned()
        append(log.broker, *(final("interrupted", name=each.name, owner=each.owner) for each in found))
    assert log.broker._abandoned() == []


RUN_KEYS = ("run:r", "events:r", "info:r", "active", "owners", "due", "runs", "index", "tails", "meta")


@pytest.mark.parametrize("names", [*([name] for name in RUN_KEYS), ["run:r", "events:r"], ["active", "owners", "due"]],
                         ids="+".join)  # fmt: skip
def test_a_run_of_which_keys_are_evicted_goes_on_or_is_interrupted(log: Log, names: list[str]) -> None:
    log.publish("a")
    add(log.broker)
    epoch = place(log.published[0][0])[0]
    ids = [f"{epoch}-{number}" for number in append(log.broker, *(event(number) for number in range(1, 4)))]
    log.evict(*names)
    (number,) = append(log.broker, event(4))
    goes_on = not {"run:r", "events:r", "runs", "tails", "meta"} & {*names}
    assert (number > 0) is goes_on
    if goes_on:
        assert append(log.broker, event(5), final()) > [0, 0]
        assert begin(log.broker, "r") == ["1", "2", "3", "4", "5", "done"]
        assert data(page(log.broker, ids[1], "r")) == ["3", "4", "5", "done"]
        return
    assert append(log.broker, event(4), final()) == [CLOSED] * 2
    ended(log)
    found = page(log.broker, ids[1], "r")
    assert found.lost in {"trimmed", "unknown"}
    if place(log.broker.position())[0] == epoch:
        assert list(found.closed) == ["r"]
        assert begin(log.broker, "r") == ["interrupted"]
    else:
        assert not log.broker.has_channel("r")
        assert log.broker._renew_owner("me", 60) is False
    assert append(log.broker, event(4), final()) == [CLOSED] * 2
    known = log.broker._find_run("r")
    assert known is None or known.state is RunState.INTERRUPTED
    assert log.broker._begin_run(record(), None, True)[0]
    assert append(log.broker, event(1)) > [0]


def test_owners_whose_leases_are_evicted_get_time_to_renew_them(log: Log) -> None:
    add(log.broker)
    with open_broker(log.url) as other:
        add(other, "r2", owner="you")
        log.evict("owners")
        assert other._abandoned() == []
        for owner, broker in (("me", log.broker), ("you", other)):
            assert broker._renew_owner(owner, 0.05)
            log.evict("due", "active")
        eventually(lambda: [each.name for each in other._abandoned()] == ["r"])


def test_runs_that_are_due_are_found_although_the_list_of_them_is_evicted(log: Log) -> None:
    add(log.broker, "late", owner="", deadline=time.time() - 1)
    add(log.broker, "old", retain=0.01)
    add(log.broker)
    append(log.broker, final(name="old"))
    log.evict("due")
    eventually(lambda: [each.name for each in log.broker._abandoned()] == ["late"] and not log.keys_of("old"))
    assert log.keys_of("r")


def test_an_expired_run_leaves_nothing(log: Log) -> None:
    add(log.broker, retain=0.01)
    append(log.broker, event(1), final())
    assert log.keys_of("r")
    eventually(lambda: not log.broker._abandoned() and not log.keys_of("r"))
    assert log.admin.zrange(f"{{{log.prefix}}}:runs", 0, -1) == ["\x01"]
    assert log.admin.hgetall(f"{{{log.prefix}}}:active") == {"": ""}
    assert log.admin.zrange(f"{{{log.prefix}}}:due", 0, -1) == [""]


@pytest.mark.slow
def test_whatever_is_evicted_a_run_that_is_done_is_complete(redis_server: RedisServer) -> None:
    """Runs of two owners, one of whom is restarted now and then."""
    counts: Counter[str] = Counter()
    for seed in range(150):
        chance = random.Random(seed)
        log = Log(redis_server)
        try:
            counts.update(check_runs(log, chance))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            log.close()
    assert min(counts[each] for each in ("done", "interrupted", "unknown", "refused")) > 5, counts


def check_runs(log: Log, chance: random.Random) -> Iterator[str]:
    written: dict[str, list[str]] = {}
    for name in ("r", "s"):
        add(log.broker, name)
        written[name] = []
    for _ in range(chance.randint(3, 12)):
        name = chance.choice("rs")
        if chance.random() < 0.2 and (keys := log.keys()):
            log.admin.delete(*chance.sample(keys, min(len(keys), chance.randint(1, 2))))
        elif chance.random() < 0.2:
            log.publish("a")
        else:
            number = len(written[name]) + 1
            (appended,) = append(log.broker, event(number, name))
            if appended > 0:
                written[name].append(str(number))
            else:
                yield "refused"
                written[name] = [*written[name], "refused"]  # what follows has to be refused as well
    for name, expected in written.items():
        (number,) = append(log.broker, final(name=name)._replace(number=len(expected) + 1))
        is_done = number > 0
        if keys := chance.choice(([], log.keys())):
            log.admin.delete(chance.choice(keys))
        ended(log)
        found = log.broker._find_run(name)
        yield "unknown" if found is None else found.state
        assert found is None or found.state.ended
        assert "refused" not in expected or not is_done
        if found is not None and found.state is RunState.DONE:
            assert is_done
            assert begin(log.broker, name) == [*expected, "done"]
        elif log.broker.has_channel(name):
            assert page(log.broker, log.broker.position(), name).closed
