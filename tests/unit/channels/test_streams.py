"""A subscription as the source of a stream: without a thread of its own, and gone when the stream is."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from ssesync import Broker, CloseReason, Event, EventStream, StreamClosed, open_broker
from ssesync.wire import Decoder

from .test_contract import eventually

EMPTY: dict[str, str] = {"REQUEST_METHOD": "GET"}


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker("memory://") as broker:
        yield broker


def opened(broker: Broker, *channels: str, **options: object) -> EventStream:
    stream = EventStream(broker.subscribe(*channels, **options), keep_alive=0.05)  # type: ignore[arg-type]
    assert stream.open(EMPTY) == "200 OK"
    assert next(stream) == b":ok\n"
    return stream


def test_what_is_published_comes_out_of_the_stream_with_the_brokers_id(broker: Broker) -> None:
    stream = opened(broker, "a")
    first = broker.publish("a", Event("x\ny", type="note", retry=5))
    second = broker.publish("a", {"n": 1})
    assert next(stream) == (
        f'id: {first}\nevent: note\nretry: 5\ndata: x\ndata: y\n\nid: {second}\ndata: {{"n":1}}\n\n'.encode()
    )
    assert stream.stats.events == 2
    stream.close()


def test_it_takes_no_thread(broker: Broker) -> None:
    before = threading.active_count()
    streams = [opened(broker, "a") for _ in range(20)]
    assert threading.active_count() <= before + 1  # the reactor, which is one for all
    for stream in streams:
        stream.close()


def test_silence_is_filled_with_keep_alives(broker: Broker) -> None:
    stream = opened(broker, "a")
    assert next(stream) == next(stream) == b":keep-alive\n"
    stream.close()


def test_replay_goes_out_through_the_stream_in_pages_and_then_it_is_live(broker: Broker) -> None:
    ids = [broker.publish("a", str(n)) for n in range(250)]
    stream = opened(broker, "a", last_event_id=ids[0])
    decoder = Decoder()
    events: list[Event] = []
    while len(events) < 249:
        piece = decoder.feed(next(stream))
        assert 0 < len(piece) <= 100
        events += piece
    live = broker.publish("a", "live")
    events += decoder.feed(next(stream))
    assert [event.id for event in events] == [*ids[1:], live]
    stream.close()


def test_a_stream_that_is_closed_is_no_subscriber_any_more(broker: Broker) -> None:
    stream = opened(broker, "a")
    assert broker.subscriber_count("a") == 1
    stream.close()
    assert broker.subscriber_count("a") == 0
    assert stream.reason is CloseReason.CLIENT_GONE


def test_a_stream_that_was_never_served_is_no_subscriber_any_more(broker: Broker) -> None:
    stream = EventStream(broker.subscribe("a"))
    assert broker.subscriber_count("a") == 1
    del stream
    gc.collect()
    # A process with a reactor has a thread of its own close what was garbage.
    eventually(lambda: broker.subscriber_count("a") == 0)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_stream_subscribes_to_nothing(broker: Broker, method: str) -> None:
    stream = EventStream(broker.subscribe("a"), finished=lambda last_event_id: method == "GET")
    stream.open({"REQUEST_METHOD": method})
    assert broker.subscriber_count("a") == 0


def test_a_stream_that_is_stopped_sends_what_waits_and_when_to_come_back(broker: Broker) -> None:
    stream = opened(broker, "a")
    broker.publish("a", "last words")
    stream.stop()
    assert next(stream).endswith(b"data: last words\n\n")
    assert next(stream).startswith(b"retry: ")
    with pytest.raises(StopIteration):
        next(stream)
    assert broker.subscriber_count("a") == 0


def test_a_stream_is_ended_by_the_brokers_end(broker: Broker) -> None:
    stream = opened(broker, "a")
    broker.close()
    [last] = list(stream)
    assert last.startswith(b"retry: ")
    assert stream.reason is CloseReason.SHUTDOWN


def test_a_revoked_stream_sends_nothing_more(broker: Broker) -> None:
    stream = opened(broker, "a", key="user:7")
    broker.publish("a", "secret")
    broker.revoke("user:7", "a")
    assert list(stream) == []
    assert stream.reason == "revoked"


def test_a_stream_that_nobody_reads_is_ended_with_overflow(broker: Broker) -> None:
    stream = opened(broker, "a", max_pending_events=3, patience=0)
    for n in range(4):
        broker.publish("a", str(n))
    assert list(stream) == []
    assert stream.reason is CloseReason.OVERFLOW
    assert broker.subscriber_count("a") == 0


def test_a_generator_may_read_a_subscription(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    stream = EventStream(event.data.upper() for event in subscription if event.data)
    broker.publish("a", "x")
    stream.open(EMPTY)
    assert [next(stream), next(stream)] == [b":ok\n", b"data: X\n\n"]
    stream.close()
    subscription.close()
    with pytest.raises(StreamClosed):
        subscription.get()
