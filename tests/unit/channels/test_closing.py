"""Channels that end: what every broker keeps to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ssesync import Broker, BrokerClosed, ChannelClosed, ChannelError
from ssesync.channels.entry import CLOSED, DUPLICATE, Entry, Start
from ssesync.channels.log import Page

from .conftest import Open, got, numbered, published, texts
from .test_contract import eventually, place


def page(broker: Broker, event_id: str, *channels: str, patterns: tuple[str, ...] = (), limit: int = 100) -> Page:
    """The events after an id."""
    return broker.read(*place(event_id), channels, patterns, limit)


def data(found: Page) -> list[str | None]:
    return [message.event.data for message in found.messages]


def begin(broker: Broker, *channels: str, patterns: tuple[str, ...] = (), last: int | None = None) -> list[str | None]:
    """All events from where the log says that they begin."""
    start = broker.start_of(channels, patterns, last)
    found = broker.read(start.epoch, start.seq, channels, patterns, 100)
    assert found.lost == ""
    assert found.closed == start.closed
    return data(found)


# Closing.


def test_no_event_is_published_after_a_final_one(openers: Open) -> None:
    one, other = openers(), openers()
    one.publish("a", "first")
    final = one.publish("a", "last", final=True)
    for broker in (one, other):
        for action in (
            lambda broker=broker: broker.publish("a", "x"),
            lambda broker=broker: broker.publish("a", "x", final=True),
            lambda broker=broker: broker.publish_many([("b", "x"), ("a", "x")]),
            broker.prepare("a", "x"),
        ):
            with pytest.raises(ChannelClosed, match="'a' is closed"):
                action()
    assert one.position() == final
    assert one.snapshot()["published"] == 2


def test_a_channel_may_have_nothing_but_a_final_event(broker: Broker) -> None:
    before = broker.position()
    final = broker.publish("a", "last", final=True)
    found = page(broker, before, "a")
    assert data(found) == ["last"]
    assert found.closed == {"a": place(final)[1]}


def test_subscribers_get_the_final_event_and_know_it(openers: Open) -> None:
    with openers().subscribe("a", "b") as subscription:
        broker = openers()
        start = broker.publish("a", "first")
        broker.publish("a", "last", final=True)
        broker.publish("b", "of another channel")
        seen: list[Any] = []
        while len(seen) < 3:
            seen += subscription.take(30) or ()
    assert [message.event.data for message in seen] == ["first", "last", "of another channel"]
    assert [message.final for message in seen] == [False, True, False]
    assert [message.final for message in page(broker, start, "a", "b").messages] == [True, False]


def test_a_page_names_the_channels_that_are_closed_whatever_else_it_has(broker: Broker) -> None:
    (start,) = published(broker, "open", "x")
    closed = {name: place(broker.publish(name, "last", final=True))[1] for name in ("a", "b")}
    assert page(broker, start, "a", "open", "b", "unheard").closed == closed
    assert page(broker, broker.position(), "a", "b").closed == closed
    assert page(broker, start, "a", limit=1).closed == {"a": closed["a"]}
    assert page(broker, "none-5", "a", "open").closed == {"a": closed["a"]}
    by_pattern = page(broker, start, "open", patterns=("*",))
    assert by_pattern.closed == {}
    assert [message.final for message in by_pattern.messages] == [True, True]


def test_a_page_of_which_events_are_lost_names_the_channels_that_are_closed(openers: Open) -> None:
    broker = openers(max_events=2)
    ids = published(broker, "a", *numbered(5))
    final = broker.publish("a", "last", final=True)
    found = page(broker, ids[0], "a")
    assert (found.lost, found.messages) == ("trimmed", [])
    assert found.closed == {"a": place(final)[1]}


def test_of_those_that_close_a_channel_at_the_same_time_one_does(openers: Open) -> None:
    brokers = [openers(), openers()]
    done: list[str] = []
    refused: list[ChannelClosed] = []

    def close(number: int) -> None:
        try:
            done.append(brokers[number % 2].publish("a", str(number), final=True))
        except ChannelClosed as error:
            refused.append(error)

    start = brokers[0].publish("a", "first")
    threads = [threading.Thread(target=close, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len(refused)) == (1, 7)
    assert [message.final for message in page(brokers[1], start, "a").messages] == [True]


def test_a_closed_channel_that_the_limits_remove_is_as_one_that_never_was(openers: Open) -> None:
    broker = openers(max_channels=2)
    start = broker.position()
    broker.publish("a", "last", final=True)
    assert broker.has_channel("a")
    published(broker, "b", "x")
    (last,) = published(broker, "c", "x")
    assert not broker.has_channel("a")
    assert page(broker, last, "a").closed == {}
    assert page(broker, start, "a").lost == "trimmed"
    assert broker.start_of(["a"], [], 0).closed == {}
    broker.publish("a", "again")
    assert data(page(broker, last, "a")) == ["again"]


def test_a_broker_lists_the_channels_of_its_log(openers: Open) -> None:
    broker = openers()
    assert not broker.has_channel("a")
    broker.publish("a", "x", final=True)
    assert openers().has_channel("a")
    assert not openers().has_channel("A")
    with pytest.raises(ChannelError):
        broker.has_channel("")


def test_a_channel_that_is_too_old_is_not_there(openers: Open) -> None:
    broker = openers(max_age=0.05)
    published(broker, "a", "x")
    eventually(lambda: not broker.has_channel("a"))


# Many at once.


def test_many_are_published_in_order_with_one_step(openers: Open) -> None:
    one, other = openers(), openers()
    with other.subscribe("a", "b") as subscription:
        ids = one.publish_many([("a", "1"), ("b", {"n": 2}, "json"), ("c", "3"), ("a", b"4", None)])
        events = got(subscription, 3)
    assert [(event.data, event.type) for event in events] == [("1", "message"), ('{"n":2}', "json"), ("4", "message")]
    assert [event.id for event in events] == [ids[0], ids[1], ids[3]]
    assert ids == sorted(set(ids), key=place)
    assert one.snapshot()["published"] == 4
    assert one.publish_many([]) == []


def test_many_are_published_all_or_none(broker: Broker) -> None:
    broker.publish("closed", "last", final=True)
    before = broker.position()
    with broker.subscribe("a", "b") as subscription:
        with pytest.raises(ChannelClosed, match="'closed'"):
            broker.publish_many([("a", "1"), ("closed", "2"), ("b", "3")])
        with pytest.raises(ChannelError):
            broker.publish_many([("a", "1"), ("*", "2")])
        with pytest.raises(TypeError):
            broker.publish_many([("a", "1"), ("a", None)])
        assert broker.position() == before
        assert not broker.has_channel("a")
        published(broker, "a", "fine")
        assert texts(subscription, 1) == ["fine"]


def test_many_wake_a_subscriber_once(openers: Open) -> None:
    with openers().subscribe("a") as subscription:
        taken: list[list[Any]] = []
        ready = threading.Event()

        def take() -> None:
            ready.set()
            while sum(map(len, taken)) < 40:
                taken.append(list(subscription.take(30) or ()))

        thread = threading.Thread(target=take)
        thread.start()
        ready.wait()
        openers().publish_many([("a", text) for text in numbered(40)])
        thread.join()
    assert [len(each) for each in taken] == [40]


def test_more_than_the_log_keeps_are_trimmed(openers: Open) -> None:
    broker = openers(max_events=10)
    start = broker.position()
    ids = broker.publish_many([("a", text) for text in numbered(200)])
    assert data(page(broker, ids[189], "a")) == numbered(10, 190)
    assert page(broker, start, "a").lost == "trimmed"


def test_entries_are_refused_one_by_one_unless_they_are_a_whole(broker: Broker) -> None:
    entries = [Entry("a", b"data: 1\n\n"), Entry("a", b"data: 2\n\n", final=True), Entry("a", b"data: 3\n\n"),
               Entry("b", b"data: 4\n\n"), Entry("b", b"data: 5\n\n", number=1)]  # fmt: skip
    before = broker.position()
    with pytest.raises(ChannelClosed):
        broker._append_many(entries, whole=True)
    assert broker.position() == before
    epoch, numbers = broker._append_many(entries, whole=False)
    assert [number > 0 for number in numbers] == [True, True, False, True, False]
    assert (numbers[2], numbers[4]) == (CLOSED, CLOSED)
    assert data(page(broker, before, "a", "b")) == ["1", "2", "4"]
    assert place(broker.position()) == (epoch, numbers[3])
    assert DUPLICATE < CLOSED


# Where channels begin, and single events.


@pytest.mark.parametrize("last", [None, 0, 1, 3, 100])
def test_channels_begin_before_their_last_events_together(broker: Broker, last: int | None) -> None:
    for n in range(6):
        broker.publish("abc"[n % 3], str(n))
    broker.publish("b", "6", final=True)
    wanted = {
        ("a",): ["0", "3"],
        ("a", "b"): ["0", "1", "3", "4", "6"],
        ("none",): [],
        ("none", "c"): ["2", "5"],
    }
    for channels, expected in wanted.items():
        assert begin(broker, *channels, last=last) == expected[0 if last is None else max(0, len(expected) - last) :]
    everything = [str(n) for n in range(7)]
    assert begin(broker, patterns=("*",), last=last) == everything[0 if last is None else max(0, 7 - last) :]
    assert broker.start_of(["a", "b"], [], last).closed == {"b": place(broker.position())[1]}
    if last == 0:
        assert broker.start_of(["a"], [], 0)[:2] == place(broker.position())


def test_channels_that_were_trimmed_begin_where_the_log_does(openers: Open) -> None:
    broker = openers(max_events=3, max_channels=3)
    published(broker, "gone", "x")
    published(broker, "a", *numbered(5))
    published(broker, "b", *numbered(5, 10))
    assert begin(broker, "a") == begin(broker, "a", last=5) == ["2", "3", "4"]
    assert begin(broker, "a", last=2) == ["3", "4"]
    assert begin(broker, "b", last=9) == ["12", "13", "14"]
    published(broker, "c", "x")
    assert not broker.has_channel("gone")
    assert begin(broker, "gone") == []
    assert begin(broker, "gone", "c") == ["x"]
    assert begin(broker, patterns=("*",)) == ["12", "13", "14", "x"]  # those of b before it were trimmed


@pytest.mark.slow
def test_channels_begin_after_expired_events(openers: Open) -> None:
    broker = openers(max_age=1)

    # On a busy machine each line may take a second, after which the events are too old: then all is done again.
    def beginning(last: int | None = None) -> list[str | None]:
        start = broker.start_of(["a"], [], last)
        found = broker.read(start.epoch, start.seq, ["a"], [], 100)
        return ["old"] if found.lost else data(found)

    def older_ones_are_left_out() -> bool:
        published(broker, "a", "old")
        time.sleep(0.5)
        published(broker, "a", "x")
        while "old" in (found := beginning()):
            time.sleep(0.01)
        return found == ["x"]

    def new_ones_are_found(last: int | None) -> bool:
        published(broker, "a", "new")
        return set(beginning(last)) == {"new"}

    eventually(older_ones_are_left_out)
    eventually(lambda: beginning(last=5) == [])
    for last in (None, 1, 7):
        eventually(lambda: new_ones_are_found(last))  # noqa: B023


@pytest.mark.parametrize(("begin_at", "expected"), [({"since": "start"}, ["2", "3"]), ({"last": 1}, ["3"])])
def test_what_the_log_drops_before_a_new_subscriber_reads_it_is_no_gap(
    begin_at: dict[str, Any], expected: list[str], openers: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = openers(max_events=2)
    published(broker, "a", "0", "1")
    find, more = broker.start_of, ["2", "3"]

    def start_of(*arguments: Any) -> Start:
        start = find(*arguments)
        if more:  # as another process does at this moment
            published(broker, "a", *more)
            more.clear()
        return start

    monkeypatch.setattr(broker, "start_of", start_of)
    with broker.subscribe("a", **begin_at) as subscription:
        assert texts(subscription, len(expected)) == expected
        published(broker, "a", "4")
        assert texts(subscription, 1) == ["4"]
    assert broker.snapshot()["resets"] == 0


def test_an_event_is_found_by_its_id(openers: Open) -> None:
    broker = openers(max_events=3)
    ids = published(broker, "a", *numbered(5))
    ids += published(broker, "b", "x")
    ids.append(broker.publish("b", "y", final=True))
    broker.revoke("ada")
    other = openers()
    assert [other.channel_of(each) for each in ids] == [None, None, "a", "a", "a", "b", "b"]
    found = [broker.find(*place(each)) for each in ids[-2:]]
    assert [(each.event.data, each.event.id, each.final) for each in found if each] == [
        ("x", ids[-2], False),
        ("y", ids[-1], True),
    ]
    epoch, seq = place(ids[-1])
    for wrong in ("", "x", f"{epoch}-{seq + 10**9}", f"{'0' * len(epoch)}-{seq}", broker.position()):
        assert broker.channel_of(wrong) is None
    with pytest.raises(TypeError):
        broker.channel_of(5)  # type: ignore[arg-type]


def test_a_closed_broker_answers_no_more(broker: Broker) -> None:
    event_id = broker.publish("a", "x")
    broker.close()
    actions: list[Callable[[], object]] = [
        lambda: broker.publish_many([("a", "x")]),
        lambda: broker.publish("a", "x", final=True),
        lambda: broker.channel_of(event_id),
        lambda: broker.has_channel("a"),
    ]
    for action in actions:
        with pytest.raises(BrokerClosed):
            action()
