"""What becomes of subscribers that can't keep up, by each policy."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ssesync import Broker, CloseReason, Event, StreamClosed, open_broker
from ssesync.wire import Decoder

from .conftest import got, numbered, published, texts


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker("memory://") as broker:
        yield broker


def events_of(items: list[bytes] | None) -> list[Event]:
    return Decoder().feed(b"".join(items or []))


def data_of(items: list[bytes] | None) -> list[str | None]:
    return [event.data for event in events_of(items)]


def test_disconnect_ends_a_subscriber_that_has_not_polled_within_its_stall_timeout(broker: Broker) -> None:
    subscription = broker.subscribe("a", max_pending_events=2, patience=0)
    published(broker, "a", "1", "2")
    assert not subscription.closed
    published(broker, "a", "3")
    assert subscription.reason is CloseReason.OVERFLOW
    assert subscription.pending == (0, 0)
    assert broker.snapshot()["disconnected"] == 1
    assert broker.snapshot()["subscribers"] == 0


def test_disconnect_reads_events_that_did_not_fit_from_the_log(broker: Broker) -> None:
    subscription = broker.subscribe("a", max_pending_events=2, patience=60)
    published(broker, "a", *numbered(5))
    assert subscription.pending == (0, 0)  # it is all in the log
    published(broker, "a", "5")
    assert texts(subscription, 6) == numbered(6)
    published(broker, "a", "6")
    assert subscription.pending[0] == 1
    assert texts(subscription, 1) == ["6"]
    assert broker.snapshot()["disconnected"] == 0


def test_a_reader_that_is_slower_than_the_log_is_long_is_given_up() -> None:
    with open_broker("memory://?max_events=4") as broker:
        subscription = broker.subscribe("a", max_pending_events=2, patience=60)
        published(broker, "a", *numbered(3))
        assert data_of(subscription.take(0)) == ["0", "1", "2"]
        published(broker, "a", *numbered(20))
        assert subscription.take(0) is None
        assert subscription.reason is CloseReason.OVERFLOW
        with broker.subscribe("a", last_event_id=subscription.last_event_id) as again:
            assert got(again, 1)[0].type == "reset"


def test_bytes_count_as_well_as_events(broker: Broker) -> None:
    subscription = broker.subscribe("a", max_pending_bytes=300, patience=0)
    published(broker, "a", "x" * 200)
    assert not subscription.closed
    published(broker, "a", "x" * 200)
    assert subscription.closed


def test_an_event_larger_than_the_queue_waits_alone(broker: Broker) -> None:
    subscription = broker.subscribe("a", max_pending_bytes=10, patience=0)
    published(broker, "a", "x" * 200)
    assert texts(subscription, 1) == ["x" * 200]


def test_drop_oldest_leaves_out_the_oldest_and_says_how_many(broker: Broker) -> None:
    subscription = broker.subscribe("a", overflow="drop_oldest", max_pending_events=3, dropped_event="missed")
    published(broker, "a", *numbered(10))
    note, *kept = events_of(subscription.take(0))
    assert (note.type, note.json(), note.id) == ("missed", {"count": 7}, "")
    assert [event.data for event in kept] == ["7", "8", "9"]
    published(broker, "a", "10")
    assert data_of(subscription.take(0)) == ["10"]
    assert broker.snapshot()["dropped"] == 7
    assert not subscription.closed


def test_drop_oldest_drops_as_many_as_a_large_event_takes(broker: Broker) -> None:
    subscription = broker.subscribe("a", overflow="drop_oldest", max_pending_bytes=400)
    published(broker, "a", *(str(n) * 80 for n in range(3)), "y" * 280)
    assert [text[:1] for text in data_of(subscription.take(0)) if text] == ["{", "y"]
    assert broker.snapshot()["dropped"] == 3


def test_coalesce_keeps_the_newest_of_each_key_in_order(broker: Broker) -> None:
    subscription = broker.subscribe(
        "a", overflow="coalesce", coalesce=lambda event: event.json()["k"], max_pending_events=4
    )
    for n, key in enumerate("abcabca"):
        broker.publish("a", {"k": key, "n": n})
    taken = events_of(subscription.take(0))
    assert [event.json() for event in taken] == [{"k": "b", "n": 4}, {"k": "c", "n": 5}, {"k": "a", "n": 6}]
    assert broker.snapshot()["coalesced"] == 4
    broker.publish("a", {"k": "a", "n": 7})
    broker.publish("a", {"k": "a", "n": 8})
    assert len(events_of(subscription.take(0))) == 2  # there was room


def test_coalesce_keeps_apart_what_is_of_different_channels_or_has_no_key(broker: Broker) -> None:
    subscription = broker.subscribe("a", "b", overflow="coalesce", coalesce=lambda event: event.data or None,
                                    max_pending_events=4)  # fmt: skip
    for channel, text in (("a", "x"), ("b", "x"), ("a", ""), ("a", ""), ("a", "x")):
        broker.publish(channel, text)
    assert data_of(subscription.take(0)) == ["x", "", "", "x"]


def test_coalesce_with_more_keys_than_fit_reads_the_log(broker: Broker) -> None:
    subscription = broker.subscribe("a", overflow="coalesce", coalesce=lambda event: event.data, max_pending_events=3,
                                    patience=60)  # fmt: skip
    published(broker, "a", *numbered(6))
    assert texts(subscription, 6) == numbered(6)


def test_a_coalescing_function_that_fails_is_logged_and_coalesces_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = broker.subscribe("a", overflow="coalesce", coalesce=lambda event: 1 / 0, max_pending_events=2,
                                    patience=60)  # fmt: skip
    published(broker, "a", "1", "2", "3")
    assert texts(subscription, 3) == ["1", "2", "3"]
    assert "the coalesce function failed" in caplog.text


@pytest.mark.slow
def test_one_that_stalls_costs_the_others_and_the_publisher_nothing(broker: Broker) -> None:
    count = 5000
    stalled = broker.subscribe("a", patience=0)
    start = stalled.last_event_id
    seen: list[list[str | None]] = []
    live = [broker.subscribe("a", patience=60) for _ in range(9)]
    threads = [threading.Thread(target=lambda s=each: seen.append(texts(s, count))) for each in live]
    for thread in threads:
        thread.start()
    published(broker, "a", *numbered(count))
    for thread in threads:
        thread.join(90)
    assert seen == [numbered(count)] * 9
    assert stalled.reason is CloseReason.OVERFLOW
    assert stalled.pending == (0, 0)
    with broker.subscribe("a", last_event_id=start) as again:
        assert texts(again, count) == numbered(count)


def test_iteration_ends_quietly_on_close_and_loudly_on_overflow(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    subscription.close()
    assert list(subscription) == []
    subscription = broker.subscribe("a", max_pending_events=1, patience=0)
    published(broker, "a", "1", "2")
    with pytest.raises(StreamClosed, match="overflow"):
        list(subscription)
