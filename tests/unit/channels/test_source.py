"""A subscription by the contract of sources: what it gives, when it calls, how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssesync import Broker, BrokerUnavailable, CloseReason, open_broker
from ssesync.server.source import END, PENDING, BlockingPull, Detachable, Pending
from ssesync.wire import Decoder

from .conftest import published

MOST = 65536


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker("memory://") as broker:
        yield broker


def test_it_gives_what_there_is_and_says_when_there_is_more(broker: Broker) -> None:
    source = broker.subscribe("a").as_source()
    called: list[int] = []
    source.on_ready = lambda: called.append(1)
    assert isinstance(source, Detachable)
    assert source.open(0) is None
    assert source.resumable
    assert source.pull(MOST) is PENDING
    first, second = published(broker, "a", "1", "2")
    assert called
    assert source.pending[0] == 2
    assert source.pull(MOST) == f"id: {first}\ndata: 1\n\nid: {second}\ndata: 2\n\n".encode()
    assert source.events == 2
    assert source.pull(MOST) is PENDING
    broker.close()
    assert source.pull(MOST) is END
    assert source.reason is CloseReason.SHUTDOWN


def test_it_is_always_the_same_and_begins_with_what_is_to_come_first(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    source = subscription.as_source()
    assert subscription.as_source() is source
    subscription.send_first(["state"])
    broker.publish("a", "change")
    assert source.pull(MOST) == b"data: state\n\n"
    assert isinstance(change := source.pull(MOST), bytes)
    assert change.endswith(b"data: change\n\n")


def test_pull_returns_as_many_bytes_as_requested(broker: Broker) -> None:
    source = broker.subscribe("a").as_source()
    published(broker, "a", *(str(number) * 100 for number in range(5)))
    decoder, pulled = Decoder(), []
    while not isinstance(piece := source.pull(250), Pending):
        assert isinstance(piece, bytes)
        assert len(piece) <= 250
        pulled += decoder.feed(piece)
    assert [event.data for event in pulled] == [str(number) * 100 for number in range(5)]


def test_it_replays_and_then_is_live(broker: Broker) -> None:
    ids = published(broker, "a", *map(str, range(250)))
    source = broker.subscribe("a", last_event_id=ids[0]).as_source()
    events = []
    while not isinstance(piece := source.pull(MOST), Pending):
        assert isinstance(piece, bytes)
        events += Decoder().feed(piece)
    assert [event.id for event in events] == ids[1:]


def test_a_log_that_can_not_be_read_is_read_again_later(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = published(broker, "a", "1", "2")
    reads: list[int] = []

    def fail(*args: object) -> None:
        reads.append(1)
        raise BrokerUnavailable("no server")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "read", fail)
        source = broker.subscribe("a", last_event_id=ids[0]).as_source()
        for _ in range(3):
            pulled = source.pull(MOST)
            assert isinstance(pulled, Pending)
            assert pulled.again
    assert len(reads) == 1  # nobody asks faster than that
    pulled = BlockingPull(source).pull(MOST, 30)
    assert isinstance(pulled, bytes)
    assert pulled.endswith(b"data: 2\n\n")


def test_stopped_it_gives_what_waits_and_cancelled_nothing(broker: Broker) -> None:
    stopped, cancelled, closed = (broker.subscribe("a").as_source() for _ in range(3))
    broker.publish("a", "1")
    stopped.stop(CloseReason.SHUTDOWN, b"retry: 5\n")
    cancelled.cancel(CloseReason.CLIENT_GONE)
    closed.close()
    last = stopped.pull(MOST)
    assert isinstance(last, bytes)
    assert last.endswith(b"data: 1\n\nretry: 5\n")
    for source in (stopped, cancelled, closed):
        assert source.pull(MOST) is END
    assert cancelled.reason is CloseReason.CLIENT_GONE
    assert broker.subscriber_count("a") == 0


def test_a_thread_that_waits_gets_what_is_published(broker: Broker) -> None:
    pull = BlockingPull(broker.subscribe("a").as_source())
    assert pull.pull(MOST, 0) is PENDING
    broker.publish("a", "1")
    pulled = pull.pull(MOST, 60)
    assert isinstance(pulled, bytes)
    assert pulled.endswith(b"data: 1\n\n")
