"""What becomes of subscribers that can't keep up, by each policy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync import Broker, CloseReason, Event, StreamClosed, open_broker
from ssesync.channels.dispatcher import Dispatcher
from ssesync.channels.message import Message
from ssesync.channels.policy import Policy
from ssesync.channels.subscriber import Inbox
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


def test_disconnect_gives_up_who_has_not_looked_for_its_patience(broker: Broker) -> None:
    subscription = broker.subscribe("a", max_pending_events=2, patience=0)
    published(broker, "a", "1", "2")
    assert not subscription.closed
    published(broker, "a", "3")
    assert subscription.reason is CloseReason.OVERFLOW
    assert subscription.pending == (0, 0)
    assert broker.snapshot()["disconnected"] == 1
    assert broker.snapshot()["subscribers"] == 0


def test_disconnect_gives_a_reader_what_there_was_no_room_for_from_the_log(broker: Broker) -> None:
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


def test_an_event_larger_than_all_room_waits_alone(broker: Broker) -> None:
    subscription = broker.subscribe("a", max_pending_bytes=10, patience=0)
    published(broker, "a", "x" * 200)
    assert texts(subscription, 1) == ["x" * 200]


def test_drop_oldest_leaves_out_the_oldest_and_says_how_many(broker: Broker) -> None:
    subscription = broker.subscribe("a", overflow="drop_oldest", max_pending_events=3, dropped_event="missed")
    published(broker, "a", *numbered(10))
    note, *kept = events_of(subscription.take(0))
    assert (note.type, note.json(), note.id) == ("missed", {"count": 7}, None)
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


def test_coalesce_with_more_keys_than_room_reads_the_log(broker: Broker) -> None:
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
    assert "coalesces events failed" in caplog.text


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
        thread.join(30)
    assert seen == [numbered(count)] * 9
    assert stalled.reason is CloseReason.OVERFLOW
    assert stalled.pending == (0, 0)
    with broker.subscribe("a", last_event_id=start) as again:
        assert texts(again, count) == numbered(count)


def message(seq: int, text: str = "x") -> Message:
    return Message.make("e", seq, "a", f"data: {text}\n\n".encode())


def inbox(**policy: Any) -> Inbox:
    box = Inbox(Policy(**policy), lambda name, by: None)
    box.start("e", 0, behind=False)
    return box


def test_a_frame_that_is_offered_twice_or_from_before_the_start_is_given_once() -> None:
    box = inbox()
    box.start("e", 3, behind=False)
    for seq in (2, 3, 4, 4, 5, 4):
        assert box.offer(message(seq))
    assert box.take(0) == [message(4), message(5)]
    assert box.cursor == 5


def test_what_is_offered_while_the_log_is_read_follows_what_was_read() -> None:
    box = inbox()
    box.start("e", 0, behind=True)
    place = box.look()
    assert place == (0, "e", 0)
    for seq in (2, 3):
        box.offer(message(seq))
    assert box.take(0) == []  # not before what comes first
    assert box.found([message(1), message(2)], complete=True, generation=0, end=2, epoch="e") == [
        message(1), message(2), message(3),
    ]  # fmt: skip
    assert not box.behind


def test_what_was_left_out_while_the_log_was_read_makes_it_be_read_again() -> None:
    box = inbox(max_pending_events=1, patience=60)
    box.start("e", 0, behind=True)
    assert box.look()
    for seq in (2, 3):
        box.offer(message(seq))
    assert box.found([message(1)], complete=True, generation=0, end=1, epoch="e") == [message(1)]
    assert box.behind
    assert box.look() == (0, "e", 1)
    assert box.found([message(2), message(3)], complete=True, generation=0, end=3, epoch="e") == [
        message(2),
        message(3),
    ]
    assert not box.behind


def test_a_log_that_began_anew_is_one_reset_and_makes_what_was_read_of_the_old_one_void() -> None:
    box = inbox()
    box.start("e", 7, behind=True)
    assert box.look()
    box.lost("restarted", "f", 2)
    box.lost("restarted", "f", 2)
    box.offer(Message.make("f", 3, "a", b"data: new\n\n"))
    assert box.found([message(8)], complete=True, generation=0, end=8, epoch="e") == []
    assert data_of(box.take(0)) == ['{"reason":"restarted"}', "new"]
    assert (box.epoch, box.cursor) == ("f", 3)


def test_who_is_behind_gets_its_last_words_without_what_comes_after_the_gap() -> None:
    box = inbox()
    box.start("e", 0, behind=True)
    box.offer(message(5))
    box.close(CloseReason.SHUTDOWN, last=b"retry: 1\n")
    assert box.take(0) == [b"retry: 1\n"]
    assert box.take(0) is None


def test_a_sink_is_let_go_of_by_a_thread_that_holds_the_hub() -> None:
    # As a destructor would that the garbage collector runs in the middle of anything.
    dispatcher = Dispatcher()
    box = inbox()
    dispatcher.attach(box, ["a"])
    with dispatcher._held():
        dispatcher.detach(box)
        assert len(dispatcher) == 1
    assert len(dispatcher) == 0


def test_iteration_ends_quietly_on_close_and_loudly_on_overflow(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    subscription.close()
    assert list(subscription) == []
    subscription = broker.subscribe("a", max_pending_events=1, patience=0)
    published(broker, "a", "1", "2")
    with pytest.raises(StreamClosed, match="overflow"):
        list(subscription)


@pytest.mark.parametrize("told_later", [True, False])
def test_numbers_of_an_old_log_hide_nothing_of_a_new_one(told_later: bool) -> None:
    box = inbox()
    box.offer(message(1000))
    box.take(0)
    box.missed()
    assert box.look()
    # The log is another one, as the reader finds before the listener does.
    reset = box.reset("unknown", "f", 3)
    if told_later:
        box.offer(message(1001))
    assert box.found([reset], complete=True, generation=0, end=3, epoch="f") == [reset]
    if told_later:
        box.offer(message(1002))
        box.lost("restarted", "f", 3)
    box.offer(Message.make("f", 4, "a", b"data: new\n\n"))
    assert data_of(box.take(0)) == ["new"]


def test_what_came_of_the_log_while_an_unknown_id_was_looked_for_is_given() -> None:
    box = inbox()
    box.start("", 0, behind=True)
    assert box.look()
    box.offer(message(3))
    box.offer(message(4))
    reset = box.reset("unknown", "e", 3)
    assert box.found([reset], complete=True, generation=0, end=3, epoch="e") == [reset, message(4)]
    box.offer(message(4))
    box.offer(message(5))
    assert box.take(0) == [message(5)]
