"""Where a subscription begins, and how it ends when its channels are closed: every broker, and each way of reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ssesync import Broker, CloseReason, Event, SettingsError, Subscription
from ssesync.server.source import END, Refusal

from .clients import Client, Join, await_events, await_that, turn
from .conftest import Open, numbered, published, texts


def all_of(subscription: Subscription) -> list[Event]:
    """What a subscription gives up to its end."""
    events = list(subscription)
    assert subscription.reason is CloseReason.DONE
    return events


def data_of(events: list[Event]) -> list[str | None]:
    return [event.data if event.type == "message" else event.type for event in events]


Read = Callable[..., list[str | None]]


@pytest.fixture(params=["thread", "detached"])
def read(request: pytest.FixtureRequest, broker: Broker) -> Read:
    """Subscribes, calls a function, and reads to the end."""

    def by_thread(*channels: str, then: Callable[[], object] = lambda: None, **options: Any) -> list[str | None]:
        subscription = broker.subscribe(*channels, **options)
        then()
        return data_of(all_of(subscription))

    def by_reactor(*channels: str, then: Callable[[], object] = lambda: None, **options: Any) -> list[str | None]:
        client = Client(broker, *channels, **options)
        try:
            turn()
            then()
            await_that(lambda: client.is_at_end, "it ends", client)
            await_that(lambda: client.reason, "its end is known")
            assert client.reason is CloseReason.DONE
            assert client.stats is not None
            assert client.stats.events == len(client.events)
            assert b"retry" not in client.bytes
            return data_of(client.events)
        finally:
            client.close()

    return by_thread if request.param == "thread" else by_reactor


def test_a_subscription_ends_after_the_final_event(broker: Broker, read: Read) -> None:
    def finish() -> None:
        broker.publish("a", "1")
        broker.publish("other", "x")
        broker.publish("a", "2", final=True)
        broker.publish("other", "x")

    assert read("a", then=finish) == ["1", "2"]
    assert len(broker.dispatcher) == 0


def test_a_subscription_ends_after_the_final_events_of_all_channels(broker: Broker, read: Read) -> None:
    def finish() -> None:
        broker.publish("a", "1", final=True)
        broker.publish("b", "2")
        broker.publish("b", "3", final=True)

    assert read("a", "b", then=finish) == ["1", "2", "3"]


def test_a_channel_that_was_closed_before_counts(broker: Broker, read: Read) -> None:
    broker.publish("a", "early", final=True)
    assert read("a", "b", then=lambda: broker.publish("b", "1", final=True)) == ["1"]


def test_a_client_that_comes_back_gets_the_rest_and_the_end(broker: Broker, read: Read) -> None:
    ids = published(broker, "a", *numbered(250))
    broker.publish("a", "last", final=True)
    assert read("a", last_event_id=ids[0]) == [*numbered(249, 1), "last"]
    assert read("a", last_event_id=ids[-1]) == ["last"]


def test_a_client_without_an_id_gets_the_final_event_and_the_end(broker: Broker, read: Read) -> None:
    published(broker, "a", "1", "2")
    broker.publish("a", "last", final=True)
    assert read("a") == ["last"]
    broker.publish("b", "very last", final=True)
    assert read("a", "b") == ["very last"]


@pytest.mark.parametrize("wrong", ["garbage", "{epoch}-{later}", "old-1"])
def test_a_client_with_an_unknown_id_gets_a_reset_what_there_is_and_the_end(
    broker: Broker, read: Read, wrong: str
) -> None:
    published(broker, "a", *numbered(150))
    epoch, _, seq = broker.publish("a", "last", final=True).partition("-")
    unknown = wrong.format(epoch=epoch, later=int(seq) + 10**12)
    assert read("a", last_event_id=unknown) == ["reset", *numbered(150), "last"]


def test_where_the_log_was_trimmed_a_client_gets_a_reset_what_there_is_and_the_end(openers: Open) -> None:
    broker = openers(max_events=3)
    ids = published(broker, "a", *numbered(6))
    broker.publish("a", "last", final=True)
    subscription = broker.subscribe("a", last_event_id=ids[0])
    assert data_of(all_of(subscription)) == ["reset", "4", "5", "last"]
    assert broker.snapshot()["resets"] == 1


def answer_of(subscription: Subscription) -> Refusal | None:
    answer = subscription.as_source().open(0)
    assert answer is None or isinstance(answer, Refusal)
    return answer


NO_CONTENT = Refusal("204 No Content", [])


def test_a_client_that_has_everything_is_answered_204(broker: Broker) -> None:
    broker.publish("b", "1", final=True)
    (before,) = published(broker, "a", "1")
    last = broker.publish("a", "2", final=True)
    after = broker.publish("other", "x")
    for event_id in (last, after):
        for channels in (["a"], ["a", "b"], ["b"]):
            subscription = broker.subscribe(*channels, last_event_id=event_id)
            assert answer_of(subscription) == NO_CONTENT
            assert subscription.take() is None
            assert subscription.reason is CloseReason.DONE
    assert answer_of(broker.subscribe("a", since=last)) == NO_CONTENT
    for subscription in (
        broker.subscribe("a", last_event_id=before),
        broker.subscribe("a", last_event_id="unknown"),
        broker.subscribe("a", "other", last_event_id=last),
        broker.subscribe("a", patterns=["a*"], last_event_id=last),
        broker.subscribe("a"),
        broker.subscribe("a", since="start"),
    ):
        assert answer_of(subscription) is None
        subscription.close()
    assert len(broker.dispatcher) == 0


def test_patterns_never_end_by_closing(broker: Broker, join: Join) -> None:
    client = join(broker, "a", patterns=["b*"])
    turn()
    with broker.subscribe("a", patterns=["b*"]) as subscription:
        broker.publish("a", "1", final=True)
        broker.publish("b1", "2", final=True)
        broker.publish("b2", "3")
        assert texts(subscription, 3) == ["1", "2", "3"]
        await_events(3, client)
        assert subscription.reason is client.reason is None


def test_since_the_start_brings_all_that_the_log_has(broker: Broker, read: Read) -> None:
    published(broker, "a", *numbered(3))

    def finish() -> None:
        broker.publish("a", "last", final=True)

    assert read("a", since="start", then=finish) == ["0", "1", "2", "last"]
    assert read("a", since="start") == ["0", "1", "2", "last"]
    assert read("a", since="start", last_event_id=broker.position()[:-1] + "x") == ["reset", "0", "1", "2", "last"]


def test_since_an_id_is_for_clients_that_send_none(broker: Broker) -> None:
    ids = published(broker, "a", *numbered(3))
    with broker.subscribe("a", since=ids[0]) as subscription:
        assert subscription.last_event_id == ids[0]
        assert texts(subscription, 2) == ["1", "2"]
        assert subscription.last_event_id == ids[2]
    with broker.subscribe("a", since=ids[0], last_event_id=ids[1]) as subscription:
        assert texts(subscription, 1) == ["2"]


def test_last_brings_so_many_of_all_channels(broker: Broker) -> None:
    for number in range(6):
        broker.publish("ab"[number % 2], str(number))
    published(broker, "other", "x")
    for count, expected in ((1, ["5"]), (3, ["3", "4", "5"]), (100, numbered(6))):
        with broker.subscribe("a", "b", last=count) as subscription:
            assert texts(subscription, len(expected)) == expected
            assert subscription.get(0) is None
    with broker.subscribe("a", last=0) as subscription:
        assert subscription.get(0) is None
    with broker.subscribe(patterns=["*"], last=2) as subscription:
        assert texts(subscription, 2) == ["5", "x"]


def test_options_that_can_not_work_are_refused(memory: Broker) -> None:
    with pytest.raises(SettingsError):
        memory.subscribe("a", since="start", last=1)
    with pytest.raises(SettingsError):
        memory.subscribe("a", last=-1)
    for wrong in ({"since": 5}, {"until_type": [5]}):
        with pytest.raises(TypeError):
            memory.subscribe("a", **wrong)  # type: ignore[arg-type]
    wrong_envelopes: tuple[Any, ...] = ("ab", 5, ("a",), ("a\n", "b"), ("a", 5), (b"\xff", "b"), ("\ud800", "b"))
    for envelope in wrong_envelopes:
        with pytest.raises(SettingsError):
            memory.subscribe("a", envelope=envelope)
    assert len(memory.dispatcher) == 0


@pytest.mark.parametrize("until", ["end", ["stop", "end"]])
def test_an_event_of_a_type_ends_a_subscription(broker: Broker, read: Read, until: Any) -> None:
    def finish() -> None:
        for text, kind in (("1", None), ("event: end", None), ("2", "end"), ("3", None), ("4", "end")):
            broker.publish("a", text, type=kind)

    assert read("a", "b", until_type=until, then=finish) == ["1", "event: end", "end"]
    assert read("a", until_type=until, since="start") == ["1", "event: end", "end"]
    assert read(patterns=["a*"], until_type=until, since="start") == ["1", "event: end", "end"]


def test_a_client_that_had_the_event_of_that_type_is_answered_204(broker: Broker) -> None:
    (before,) = published(broker, "a", "1")
    last = broker.publish("a", "2", type="end")
    elsewhere = broker.publish("b", "2", type="end")
    for options in ({"last_event_id": last}, {"since": last}):
        assert answer_of(broker.subscribe("a", until_type="end", **options)) == NO_CONTENT
    for channel, event_id in (("a", before), ("a", elsewhere), ("a", "unknown-1")):
        subscription = broker.subscribe(channel, until_type="end", last_event_id=event_id)
        assert answer_of(subscription) is None
        subscription.close()
    assert answer_of(broker.subscribe(patterns=["a*"], until_type="end", last_event_id=last)) == NO_CONTENT


@pytest.mark.parametrize("pulled", [True, False])
def test_a_stream_whose_last_events_are_not_sent_does_not_count_as_complete(memory: Broker, pulled: bool) -> None:
    memory.publish("a", "last", final=True)
    source = memory.subscribe("a").as_source()
    assert source.reason is CloseReason.DONE
    if pulled:
        source.pull(1000)
    source.cancel(CloseReason.LIFETIME, dropped=pulled)
    assert source.reason is CloseReason.LIFETIME
    assert source.pull(1000) is END


def test_a_right_that_is_revoked_before_the_last_events_are_sent_drops_them(memory: Broker) -> None:
    memory.publish("a", "last", final=True)
    source = memory.subscribe("a", key="ada").as_source()
    memory.revoke("ada")
    assert source.pull(1000) is END
    assert source.reason is CloseReason.REVOKED
