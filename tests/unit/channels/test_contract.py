"""What every broker keeps to."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest

from ssesync import (
    Broker,
    BrokerClosed,
    ChannelError,
    CloseReason,
    Event,
    EventError,
    SettingsError,
    StreamClosed,
)

from ...cases import each_case
from .conftest import Open, got, numbered, published, texts


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def place(event_id: str | None) -> tuple[str, int]:
    assert event_id is not None
    epoch, _, seq = event_id.partition("-")
    return epoch, int(seq)


def test_ids_ascend_over_all_channels(openers: Open) -> None:
    one, other = openers(), openers()
    ids = [broker.publish(channel, "x") for _ in range(5) for broker in (one, other) for channel in "ab"]
    assert len({place(each)[0] for each in ids}) == 1
    assert ids == sorted(set(ids), key=place)


def test_what_is_published_is_what_comes(broker: Broker) -> None:
    with broker.subscribe("a") as subscription:
        first = broker.publish("a", Event("x\ny", type="note", retry=7))
        second = broker.publish("a", {"ü": [1, None]}, type="json")
        third = broker.publish("a", b"\xc3\xbc")
        broker.publish("a", "")
        events = got(subscription, 4)
    assert events[:2] == [Event("x\ny", type="note", id=first), Event('{"ü":[1,null]}', type="json", id=second)]
    assert events[2:3] == [Event("ü", type="message", id=third)]
    assert events[3].data == ""


def test_a_subscriber_gets_what_comes_after_it_and_nothing_of_before(broker: Broker) -> None:
    published(broker, "a", "before")
    with broker.subscribe("a") as subscription:
        published(broker, "a", "after")
        assert texts(subscription, 1) == ["after"]
        assert subscription.get(0) is None


def test_a_subscriber_gets_its_channels_and_no_others_in_the_order_of_publishing(openers: Open) -> None:
    one, other = openers(), openers()
    with one.subscribe("a", "b") as subscription:
        for n in range(20):
            (one, other)[n % 2].publish("abc"[n % 3], str(n))
        assert texts(subscription, 14) == [str(n) for n in range(20) if n % 3 < 2]


def test_an_id_brings_what_came_after_it_and_then_what_comes(openers: Open) -> None:
    broker = openers()
    ids = published(broker, "a", *numbered(5))
    with openers().subscribe("a", last_event_id=ids[1]) as subscription:
        assert texts(subscription, 3) == ["2", "3", "4"]
        published(broker, "a", "5")
        assert texts(subscription, 1) == ["5"]
        assert subscription.get(0) is None


def test_replay_of_several_channels_is_in_order_whatever_pages_it_comes_in(broker: Broker) -> None:
    start = broker.publish("a", "start")
    expected = []
    for n in range(350):
        channel = "b" if n > 150 and n % 7 else "a"
        broker.publish(channel, str(n))
        broker.publish("other", str(n))
        expected.append(str(n))
    with broker.subscribe("a", "b", last_event_id=start) as subscription:
        assert texts(subscription, 350) == expected
        assert subscription.get(0) is None


def test_the_last_id_of_any_channel_serves_for_all(broker: Broker) -> None:
    published(broker, "a", "a1")
    (last,) = published(broker, "b", "b1")
    published(broker, "a", "a2")
    published(broker, "b", "b2")
    with broker.subscribe("a", "b", last_event_id=last) as subscription:
        assert texts(subscription, 2) == ["a2", "b2"]


@each_case("last_event_id", ["", None])
def test_without_an_id_nothing_is_replayed(broker: Broker, last_event_id: str | None) -> None:
    published(broker, "a", "old")
    with broker.subscribe("a", last_event_id=last_event_id) as subscription:
        assert subscription.get(0) is None


@each_case("wrong", ["garbage", "0", "{other}-{seq}", "{epoch}-{later}", "{epoch}-{huge}", "-1", "a-b"])
def test_an_id_that_is_not_of_this_log_gets_one_reset_and_goes_live(broker: Broker, wrong: str) -> None:
    (last,) = published(broker, "a", "old")
    epoch, seq = place(last)
    bad = wrong.format(other="0" * len(epoch), epoch=epoch, seq=seq, later=seq + 10**12, huge="9" * 18)
    with broker.subscribe("a", last_event_id=bad) as subscription:
        (reset,) = got(subscription, 1)
        assert (reset.type, reset.json(), reset.id) == ("reset", {"reason": "unknown"}, last)
        published(broker, "a", "new")
        assert texts(subscription, 1) == ["new"]
    with broker.subscribe("a", last_event_id=reset.id) as subscription:
        assert texts(subscription, 1) == ["new"]


def test_an_id_whose_events_were_trimmed_away_gets_one_reset_and_goes_live(openers: Open) -> None:
    broker = openers(max_events=3)
    ids = published(broker, "a", *numbered(6))
    with broker.subscribe("a", last_event_id=ids[1], reset_event="stale") as subscription:
        (reset,) = got(subscription, 1)
        assert (reset.type, reset.json(), reset.id) == ("stale", {"reason": "trimmed"}, ids[-1])
        published(broker, "a", "new")
        assert texts(subscription, 1) == ["new"]
    assert broker.snapshot()["resets"] == 1


def test_an_id_after_which_nothing_was_trimmed_away_gets_all(openers: Open) -> None:
    broker = openers(max_events=3)
    ids = published(broker, "a", *numbered(6))
    with broker.subscribe("a", last_event_id=ids[2]) as subscription:
        assert texts(subscription, 3) == ["3", "4", "5"]


def test_what_one_channel_loses_is_no_loss_to_another(openers: Open) -> None:
    broker = openers(max_events=3)
    (first,) = published(broker, "quiet", "first")
    published(broker, "busy", *numbered(10))
    with broker.subscribe("quiet", last_event_id=first) as subscription:
        assert subscription.get(0) is None
    with broker.subscribe("quiet", "busy", last_event_id=first) as subscription:
        assert got(subscription, 1)[0].type == "reset"


def test_the_log_is_bounded_by_bytes_but_keeps_the_newest(openers: Open) -> None:
    broker = openers(max_bytes=1000)
    ids = published(broker, "a", *("x" * 300 for _ in range(6)), "y" * 5000)
    with broker.subscribe("a", last_event_id=ids[-2]) as subscription:
        assert texts(subscription, 1) == ["y" * 5000]
    with broker.subscribe("a", last_event_id=ids[-3]) as subscription:
        assert got(subscription, 1)[0].type == "reset"


def test_the_log_is_bounded_by_age(openers: Open) -> None:
    broker = openers(max_age=0.05)
    ids = published(broker, "a", "1", "2")
    time.sleep(0.06)
    with broker.subscribe("a", last_event_id=ids[0]) as subscription:
        assert got(subscription, 1)[0].type == "reset"
    with broker.subscribe("a", last_event_id=ids[1]) as subscription:
        assert subscription.get(0) is None


def test_channels_that_nobody_publishes_to_go_when_there_are_too_many(openers: Open) -> None:
    broker = openers(max_channels=3)
    (first,) = published(broker, "c0", "first")
    (second,) = published(broker, "c0", "second")
    ids = [broker.publish(f"c{n}", str(n)) for n in range(1, 4)]
    with broker.subscribe("c0", last_event_id=first) as subscription:
        assert got(subscription, 1)[0].json() == {"reason": "trimmed"}
    with broker.subscribe("c0", last_event_id=second) as subscription:
        assert subscription.get(0) is None
    with broker.subscribe("c2", "c3", last_event_id=ids[0]) as subscription:
        assert texts(subscription, 2) == ["2", "3"]


def test_a_pattern_brings_channels_that_are_there_and_those_that_come(openers: Open) -> None:
    broker = openers()
    start = broker.publish("room:1", "old")
    published(broker, "room.1", "no")
    published(broker, "room:2", "replayed")
    with openers().subscribe("extra", patterns=["room:*:x", "room:*"], last_event_id=start) as subscription:
        published(broker, "room:3", "new")
        published(broker, "room:3:x", "once")
        published(broker, "Room:4", "no")
        published(broker, "extra", "extra")
        assert texts(subscription, 4) == ["replayed", "new", "once", "extra"]


def test_a_subscriber_of_all_channels_gets_all_events_and_no_message_of_the_brokers(broker: Broker) -> None:
    with broker.subscribe(patterns=["*"]) as subscription:
        broker.revoke("nobody")
        published(broker, "a", "1")
        assert texts(subscription, 1) == ["1"]


@each_case("name", ["", "a*", "a\nb", "\x01control", "x" * 201, "\ud800"])
def test_a_name_that_no_channel_can_have_is_refused(broker: Broker, name: str) -> None:
    with pytest.raises(ChannelError):
        broker.publish(name, "x")
    with pytest.raises(ChannelError):
        broker.subscribe(name)


@each_case("name", ["ü", " ", "a b", "room:{1}", "x" * 200, "'\"%_\\", "💬"])
def test_any_other_name_is_a_channel(broker: Broker, name: str) -> None:
    with broker.subscribe(name) as subscription, broker.subscribe(patterns=[f"{name[:-1]}*"]) as by_pattern:
        event_id = broker.publish(name, "x")
        assert texts(subscription, 1) == texts(by_pattern, 1) == ["x"]
    with broker.subscribe(name, last_event_id=event_id) as subscription:
        assert subscription.get(0) is None


def test_an_event_that_clients_could_not_use_is_refused_and_not_published(broker: Broker) -> None:
    with broker.subscribe("a") as subscription:
        with pytest.raises(EventError, match="publish the event without one"):
            broker.publish("a", Event("x", id="1"))
        with pytest.raises(EventError, match="no client would see"):
            broker.publish("a", Event(type="x"))
        with pytest.raises(TypeError):
            broker.publish("a", object())
        with pytest.raises(TypeError):
            broker.publish("a", None)
        with pytest.raises(TypeError):
            broker.publish("a", Event("x"), type="t")
        with pytest.raises(ValueError, match="JSON"):
            broker.publish("a", float("nan"))
        with pytest.raises(TypeError):
            broker.publish(5, "x")  # type: ignore[arg-type]
        published(broker, "a", "fine")
        assert texts(subscription, 1) == ["fine"]
    assert broker.snapshot()["published"] == 1


def test_a_subscription_without_a_channel_or_with_a_wrong_option_is_refused(broker: Broker) -> None:
    with pytest.raises(ChannelError):
        broker.subscribe()
    with pytest.raises(SettingsError, match="max_pending_events"):
        broker.subscribe("a", max_pending_event=1)
    with pytest.raises(SettingsError, match="drop_oldest"):
        broker.subscribe("a", overflow="drop")
    with pytest.raises(SettingsError, match="coalesce"):
        broker.subscribe("a", overflow="coalesce")
    with pytest.raises(TypeError, match="list of patterns"):
        broker.subscribe(patterns="a*")
    assert broker.snapshot()["subscribers"] == 0


def test_publishers_in_many_threads_lose_nothing_and_all_see_one_order(openers: Open) -> None:
    brokers = [openers(), openers()]
    subscriptions = [broker.subscribe("a", "b", patience=60) for broker in brokers]

    def publish(number: int) -> None:
        for n in range(50):
            brokers[number % 2].publish("ab"[n % 2], f"{number}:{n}")

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    seen = [texts(subscription, 200) for subscription in subscriptions]
    for thread in threads:
        thread.join()
    assert seen[0] == seen[1]
    for number in range(4):
        assert [text for text in seen[0] if text and text.startswith(f"{number}:")] == [
            f"{number}:{n}" for n in range(50)
        ]
    for subscription in subscriptions:
        subscription.close()


def test_a_burst_larger_than_the_queue_reaches_a_subscriber_that_reads(openers: Open) -> None:
    broker = openers()
    with openers().subscribe("a", max_pending_events=5, patience=60) as subscription:
        published(broker, "a", *numbered(300))
        assert texts(subscription, 300) == numbered(300)
        published(broker, "a", "live")
        assert texts(subscription, 1) == ["live"]


def test_a_subscriber_that_does_not_read_ends_with_overflow_and_resumes_by_replay(openers: Open) -> None:
    broker = openers()
    (start,) = published(broker, "a", "start")
    subscription = broker.subscribe("a", max_pending_events=5, patience=0)
    published(broker, "a", *numbered(50))
    eventually(lambda: subscription.closed)
    with pytest.raises(StreamClosed) as closed:
        subscription.get()
    assert closed.value.reason is CloseReason.OVERFLOW
    assert broker.subscriber_count("a", local=True) == 0
    with broker.subscribe("a", last_event_id=start) as again:
        assert texts(again, 50) == numbered(50)


def test_a_key_is_revoked_in_all_processes(openers: Open) -> None:
    one, other = openers(), openers()
    mine = [
        broker.subscribe(*channels, key="me") for broker in (one, other) for channels in (("a",), ("a", "b"), ("c",))
    ]
    by_pattern = one.subscribe(patterns=["a*"], key="me")
    yours = other.subscribe("a", key="you")
    one.revoke("me", "a")
    eventually(lambda: [each.reason for each in mine] == [CloseReason.REVOKED, CloseReason.REVOKED, None] * 2)
    assert by_pattern.reason is CloseReason.REVOKED
    other.revoke("me")
    eventually(lambda: all(each.closed for each in mine))
    published(one, "a", "x")
    assert texts(yours, 1) == ["x"]
    yours.close()


def test_a_revoked_subscription_gives_nothing_that_waits(broker: Broker) -> None:
    subscription = broker.subscribe("a", key="me")
    published(broker, "a", "secret")
    eventually(lambda: subscription.pending[0] == 1)
    broker.revoke("me")
    assert subscription.take(0) is None


@pytest.mark.slow
def test_presence_is_announced_to_other_processes(kind: str, openers: Open) -> None:
    one, other = openers(), openers()
    first = one.subscribe("a", "b")
    second = other.subscribe("a")
    assert one.subscriber_count("a", local=True) == (2 if kind == "memory" else 1)
    eventually(lambda: one.subscriber_count("a") == other.subscriber_count("a") == 2)
    eventually(lambda: other.subscriber_count("b") == 1)
    first.close()
    eventually(lambda: one.subscriber_count("a") == other.subscriber_count("a") == 1)
    assert one.subscriber_count("nobody") == 0
    second.close()
    eventually(lambda: one.subscriber_count("a") == 0)


def test_presence_ends_with_a_broker_that_is_closed(openers: Open) -> None:
    one, other = openers(), openers()
    subscription = other.subscribe("a")
    eventually(lambda: one.subscriber_count("a") == 1)
    if one is not other:
        other.close()
        assert one.subscriber_count("a") == 0
    subscription.close()


def test_a_closed_broker_ends_its_subscribers_and_does_nothing_more(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    waiting = threading.Thread(target=lambda: list(subscription))
    waiting.start()
    broker.close()
    waiting.join(90)
    assert not waiting.is_alive()
    assert subscription.reason is CloseReason.SHUTDOWN
    with pytest.raises(BrokerClosed):
        broker.publish("a", "x")
    with pytest.raises(BrokerClosed):
        broker.subscribe("a")
    broker.close()


def test_a_log_that_is_opened_again_goes_on_or_says_that_it_is_another(kind: str, openers: Open) -> None:
    broker = openers()
    ids = published(broker, "a", "1", "2")
    broker.close()
    broker = openers()
    with broker.subscribe("a", last_event_id=ids[0]) as subscription:
        (event,) = got(subscription, 1)
        assert event.type == "reset" if kind == "memory" else event.data == "2"


def test_nothing_is_started_before_it_is_needed(openers: Open) -> None:
    before = threading.active_count()
    broker = openers()
    published(broker, "a", "x")
    assert threading.active_count() == before


def test_many_subscribers_take_one_listener(broker: Broker) -> None:
    before = threading.active_count()
    subscriptions = [broker.subscribe(f"c{n % 50}") for n in range(200)]
    assert threading.active_count() <= before + 1
    for n in range(50):
        broker.publish(f"c{n}", str(n))
    assert [texts(each, 1) for each in subscriptions] == [[str(n % 50)] for n in range(200)]
    for each in subscriptions:
        each.close()


def test_a_message_is_made_once_and_shared(broker: Broker) -> None:
    subscriptions = [broker.subscribe("a") for _ in range(3)]
    published(broker, "a", "x")
    taken = [each.take(30) for each in subscriptions]
    assert taken[0]
    assert all(items and items[0] is taken[0][0] for items in taken)
    for each in subscriptions:
        each.close()


@pytest.mark.slow
def test_a_subscription_that_is_let_go_of_ends(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    assert broker.subscriber_count("a", local=True) == 1
    del subscription
    gc.collect()  # redis-py 5.0 leaves a cycle that holds the message of the call
    assert broker.subscriber_count("a", local=True) == 0


def test_a_token_is_good_for_one_use_in_all_processes(openers: Open) -> None:
    one, other = openers(), openers()
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda broker=broker: results.append(broker.use_once("token", 60)))
        for broker in (one, other) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(results) == [False] * 7 + [True]
    assert one.use_once("another", 60)


def test_a_token_is_forgotten_when_its_time_is_over(broker: Broker) -> None:
    assert broker.use_once("token", 0.05)
    time.sleep(0.06)
    assert broker.use_once("token", 60)


def test_no_pattern_matches_the_brokers_own_channel(openers: Open) -> None:
    broker = openers()
    start = broker.position()
    broker.publish("a", "1")
    broker.revoke("ada")
    broker.publish("b", "2")
    with broker.subscribe(patterns=["*"], last_event_id=start) as subscription:
        assert texts(subscription, 2) == ["1", "2"]
        broker.revoke("ada")
        broker.publish("c", "3")
        assert texts(subscription, 1) == ["3"]
