"""ChannelFeed in one process: what it publishes, and what becomes of it when the source or the broker fails."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync import (
    Broker,
    ChannelError,
    ChannelFeed,
    ConnectionLost,
    Event,
    EventError,
    EventSource,
    SettingsError,
    StatusError,
    open_broker,
)
from ssesync.channels import feed as module
from ssesync.channels.election import LeaderElection
from ssesync.testing import Answer, FakeClock, FakeSSEServer

from ...cases import each_case
from .conftest import got, texts
from .test_contract import eventually

ROOT = Path(__file__).parents[3]
Make = Callable[..., ChannelFeed]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker("memory://") as broker:
        yield broker


@pytest.fixture
def upstream() -> Iterator[FakeSSEServer]:
    with FakeSSEServer() as server:
        yield server


@pytest.fixture
def make(broker: Broker) -> Iterator[Make]:
    made: list[ChannelFeed] = []

    def make_it(source: Callable[[], Any], **options: Any) -> ChannelFeed:
        made.append(ChannelFeed(options.pop("broker", broker), "prices", source, **options))
        return made[-1]

    yield make_it
    for feed in made:
        feed.stop()
    assert feed_threads() == []


def feed_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ssesync-feed")]


def once(*items: Any) -> Callable[[], Iterator[Any]]:
    """A source that gives these, and then waits for its end."""

    class Source:
        def __init__(self) -> None:
            self.over = threading.Event()

        def __iter__(self) -> Iterator[Any]:
            yield from items
            assert self.over.wait(60)

        def cancel(self) -> None:
            self.over.set()

    return Source  # type: ignore[return-value]


def test_data_and_type_are_published_and_the_id_is_the_broker_s(
    broker: Broker, upstream: FakeSSEServer, make: Make
) -> None:
    upstream.answer().event("1", id="theirs").event("2", type="trade", id=7).event("a\nb").stall()
    subscription = broker.subscribe("prices")
    with make(lambda: EventSource(upstream.url)) as feed:
        events = got(subscription, 3)
        assert [(event.data, event.type) for event in events] == [("1", "message"), ("2", "trade"), ("a\nb", "message")]
        place = broker.position().partition("-")[0]
        assert [event.id for event in events] == [f"{place}-{number}" for number in (1, 2, 3)]
        # An event is counted when it is published: a moment after it may have come.
        eventually(lambda: feed.snapshot()["events"] == 3)
        assert feed.snapshot() == {
            "channel": "prices",
            "state": "feeding",
            "events": 3,
            "skipped": 0,
            "restarts": 0,
            "last_error": None,
        }


def test_one_connection_upstream_serves_any_number_of_subscribers(
    broker: Broker, upstream: FakeSSEServer, make: Make
) -> None:
    go = threading.Event()
    upstream.answer(times=None).wait_for(go).events("1", "2", "3").stall()
    feed = make(lambda: EventSource(upstream.url)).start()
    upstream.wait_for_requests(1)
    subscriptions = [broker.subscribe("prices") for _ in range(50)]
    starters = [threading.Thread(target=feed.start) for _ in range(8)]
    for thread in starters:
        thread.start()
    go.set()
    assert [texts(subscription, 3) for subscription in subscriptions] == [["1", "2", "3"]] * 50
    for thread in starters:
        thread.join(90)
    assert upstream.connections == 1


def test_events_that_carry_no_data_are_left_out(broker: Broker, make: Make) -> None:
    subscription = broker.subscribe("prices")
    make(once(Event(retry=5), Event(id="7"), Event("1", retry=5, comment="c"), Event(comment="c"), Event("2"))).start()
    assert [(event.data, event.retry) for event in got(subscription, 2)] == [("1", None), ("2", None)]


def test_nothing_runs_before_the_start_nor_after_the_stop(broker: Broker, make: Make) -> None:
    sources: list[object] = []
    source = once("1")

    def counted() -> Any:
        sources.append(made := source())
        return made

    feed = make(counted)
    assert (feed.state, feed_threads(), sources) == ("stopped", [], [])
    assert feed.join(0)
    feed.stop()
    for number in (1, 2):
        subscription = broker.subscribe("prices")
        feed.start()
        assert texts(subscription, 1) == ["1"]
        assert not feed.join(0)
        feed.stop()
        assert (feed.state, feed_threads(), len(sources)) == ("stopped", [], number)


def test_a_stop_ends_a_connection_on_which_nothing_comes(broker: Broker, upstream: FakeSSEServer, make: Make) -> None:
    upstream.answer().event("1").stall()
    subscription = broker.subscribe("prices")
    feed = make(lambda: EventSource(upstream.url)).start()
    assert texts(subscription, 1) == ["1"]
    feed.stop()
    upstream.wait_for_client_left()
    assert feed_threads() == []


def test_a_stop_while_the_source_is_being_made_ends_what_is_made(broker: Broker, make: Make) -> None:
    begun, go = threading.Event(), threading.Event()
    source = once("1")()

    def slow() -> Any:
        begun.set()
        assert go.wait(90)
        return source

    feed = make(slow).start()
    assert begun.wait(90)
    stopping = threading.Thread(target=feed.stop)
    stopping.start()
    eventually(lambda: feed.state == "stopped")
    go.set()
    stopping.join(90)
    assert source.over.is_set()  # type: ignore[attr-defined]
    assert broker.snapshot()["published"] == 0


def test_a_generator_is_a_source_and_may_stop_its_own_feed(broker: Broker, make: Make) -> None:
    closed = threading.Event()

    def source() -> Iterator[str]:
        try:
            yield "1"
            feed.stop()
            yield "2"
        finally:
            closed.set()

    feed = make(source)
    subscription = broker.subscribe("prices")
    feed.start()
    assert texts(subscription, 1) == ["1"]
    assert closed.wait(90)
    eventually(lambda: not feed_threads())
    assert broker.snapshot()["published"] == 1


def test_a_source_that_fails_or_ends_is_made_anew_and_logged_once(
    broker: Broker, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SOURCE", (0.01, 0.02))
    monkeypatch.setattr(module, "_HEALTHY_AFTER", 0.0)
    steady = once("2", "3")
    calls: list[int] = []

    def source() -> Any:
        calls.append(len(calls))
        if calls[-1] == 3:
            return iter(["1"])
        if calls[-1] == 4:
            return steady()
        raise ConnectionLost("with a secret of its own")

    subscription = broker.subscribe("prices")
    feed = make(source).start()
    assert texts(subscription, 3) == ["1", "2", "3"]
    assert (feed.snapshot()["restarts"], feed.snapshot()["last_error"]) == (4, "ConnectionLost")
    assert isinstance(feed.last_error, ConnectionLost)
    what = "the feed of 'prices': the source"
    eventually(lambda: len(caplog.records) == 4)
    assert [(record.name, record.message) for record in caplog.records] == [
        ("ssesync", f"{what} failed (ConnectionLost); trying again until it works"),
        ("ssesync", f"{what}: it works again"),
        ("ssesync", f"{what} ended; trying again until it works"),
        ("ssesync", f"{what}: it works again"),
    ]


def test_a_source_that_gives_an_event_and_breaks_off_is_waited_for_ever_longer(
    broker: Broker, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SOURCE", (0.01, 0.02))

    def source() -> Iterator[str]:
        yield "1"
        raise RuntimeError("again")

    subscription = broker.subscribe("prices")
    make(source).start()
    assert texts(subscription, 5) == ["1"] * 5
    assert [record.message for record in caplog.records] == [
        "the feed of 'prices': the source failed; trying again until it works"
    ]
    assert caplog.records[0].exc_info is not None  # no error of ours: it may be a mistake in the source


def test_an_error_that_is_final_to_an_event_source_is_not_to_the_feed(
    broker: Broker, upstream: FakeSSEServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SOURCE", (0.01, 0.02))
    upstream.answer(404)
    upstream.answer().event("1").stall()
    subscription = broker.subscribe("prices")
    feed = make(lambda: EventSource(upstream.url)).start()
    assert texts(subscription, 1) == ["1"]
    assert isinstance(feed.last_error, StatusError)


def test_an_upstream_that_is_away_is_waited_for_and_the_last_event_id_is_kept(
    broker: Broker, upstream: FakeSSEServer, make: Make
) -> None:
    upstream.answer().event("1", id="one")
    upstream.answer(403)
    upstream.answer(503, headers={"Retry-After": "60"})
    upstream.answer().event("2").stall()
    subscription = broker.subscribe("prices")
    clock = FakeClock(hold=True)
    feed = make(lambda: EventSource(upstream.url, should_retry=lambda error: True, clock=clock)).start()
    assert texts(subscription, 1) == ["1"]
    for count in range(1, 4):
        clock.wait_until_waiting()
        assert feed.state == "waiting"
        clock.advance(100)
        upstream.wait_for_requests(count + 1)
    assert texts(subscription, 1) == ["2"]
    assert feed.state == "feeding"
    assert [request.last_event_id for request in upstream.requests] == ["", "one", "one", "one"]


@pytest.mark.parametrize("end", ["204", "until"])
def test_the_quiet_end_of_an_event_source_is_the_feed_s(
    end: str, broker: Broker, upstream: FakeSSEServer, make: Make
) -> None:
    upstream.answer().events("1", "[DONE]").stall() if end == "until" else upstream.answer(204)
    feed = make(lambda: EventSource(upstream.url, until="[DONE]")).start()
    assert feed.join(90)
    assert feed.state == "ended"
    feed.start()
    assert (feed.state, upstream.connections) == ("ended", 1)
    assert broker.snapshot()["published"] == (1 if end == "until" else 0)


def test_a_transform_gives_what_is_published(broker: Broker, make: Make) -> None:
    def transform(event: Event) -> Any:
        return {"1": None, "2": Event("two", id=event.id), "3": {"three": 3}, "4": "four", "5": Event(retry=1)}[
            event.data or ""
        ]

    subscription = broker.subscribe("prices")
    feed = make(once(*(Event(str(n), id=n) for n in range(1, 6)), Event("2")), transform=transform).start()
    assert texts(subscription, 4) == ["two", '{"three":3}', "four", "two"]
    assert feed.snapshot()["skipped"] == 0


def test_an_event_that_can_t_be_published_is_left_out_and_logged_once(
    broker: Broker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def transform(event: Event) -> Any:
        return {"1": float("nan"), "2": object(), "3": "three"}.get(event.data or "", event)

    subscription = broker.subscribe("prices")
    feed = make(once(*map(Event, "123"), Event("1")), transform=transform).start()
    assert texts(subscription, 1) == ["three"]
    eventually(lambda: feed.snapshot()["skipped"] == 3)
    assert [record.message for record in caplog.records] == [
        "the feed of 'prices': an event failed; it is left out, as are others like it"
    ]


def test_a_broker_that_is_closed_ends_its_feed(broker: Broker, make: Make) -> None:
    go = threading.Event()

    def source() -> Iterator[str]:
        assert go.wait(90)
        yield "1"

    feed = make(source).start()
    broker.close()
    go.set()
    assert feed.join(90)
    assert feed.state == "ended"


@pytest.mark.slow
def test_while_the_broker_takes_nothing_the_event_is_kept_and_the_source_waits(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BROKER", (0.05, 0.1))
    taken: list[int] = []
    go = threading.Event()

    def source() -> Iterator[str]:
        assert go.wait(90)
        for number in range(5):
            taken.append(number)
            yield str(number)

    path = tmp_path / "channels.db"
    with open_broker(f"sqlite:///{path}", busy_timeout=0.05) as broker, broker.subscribe("prices") as subscription:
        feed = make(lambda: Closing(source()), broker=broker, lease=0.5).start()
        eventually(lambda: feed.state == "feeding")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        go.set()
        failures: set[Exception | None] = set()

        def long() -> bool:
            failures.add(feed.last_error)
            return len(failures) > 12  # of at least 0.05 s each, so longer than the lease lasts

        eventually(long)
        assert taken == [0]
        assert subscription.get(0) is None
        other.execute("ROLLBACK")
        other.close()
        assert texts(subscription, 5) == ["0", "1", "2", "3", "4"]
        assert feed.snapshot()["restarts"] == 0
        feed.stop()
    logged = [record.message.partition("; ")[0] for record in caplog.records]
    assert len(logged) == len({*logged}) <= 4
    assert any(line.startswith("the feed of 'prices': the broker failed (") for line in logged)


class Closing:
    """An iterator that can be ended, although it waits for something that never comes."""

    def __init__(self, items: Iterator[str]) -> None:
        self._items = items
        self._over = threading.Event()

    def __iter__(self) -> Iterator[str]:
        for _ in range(5):
            yield next(self._items)
        assert self._over.wait(60)

    def close(self) -> None:
        self._over.set()


def test_with_the_memory_broker_no_lease_is_shared(broker: Broker, make: Make) -> None:
    subscription = broker.subscribe("prices")
    for _ in range(2):
        make(once("1")).start()
    assert texts(subscription, 2) == ["1", "1"]
    assert not [thread for thread in feed_threads() if "lease" in thread.name]


def test_of_feeds_that_share_a_lease_one_has_a_source_and_another_name_is_another_lease(
    tmp_path: Path, make: Make
) -> None:
    made: list[str] = []

    def source_of(name: str) -> Callable[[], Any]:
        def source() -> Any:
            made.append(name)
            return once(name)()

        return source

    with open_broker(f"sqlite:///{tmp_path}/channels.db") as broker, broker.subscribe("prices") as subscription:
        first = make(source_of("first"), broker=broker, lease=30).start()
        assert texts(subscription, 1) == ["first"]
        second = make(source_of("second"), broker=broker, lease=30).start()
        make(source_of("third"), broker=broker, lease=30, name="other").start()
        make(source_of("fourth"), broker=broker, exclusive=False).start()
        assert sorted(texts(subscription, 2)) == ["fourth", "third"]
        # The lease is still the first one's when it comes back within its slots.
        first.stop()
        first.start()
        assert texts(subscription, 1) == ["first"]
        assert (first.state, second.state) == ("feeding", "standby")
        assert "second" not in made


@pytest.mark.slow
def test_no_event_is_published_after_the_lease_has_expired_until_it_is_renewed(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested, ours = threading.Semaphore(0), threading.Event()

    def is_leader(election: LeaderElection) -> bool:
        requested.release()
        return ours.is_set()

    monkeypatch.setattr(LeaderElection, "is_leader", is_leader)
    with open_broker(f"sqlite:///{tmp_path}/channels.db") as broker, broker.subscribe("prices") as subscription:
        feed = make(once("1"), broker=broker).start()
        for _ in range(3):
            assert requested.acquire(timeout=90)
        assert broker.snapshot()["published"] == 0
        ours.set()
        assert texts(subscription, 1) == ["1"]
        feed.stop()


def test_losing_the_lease_ends_the_source_and_getting_it_makes_another(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = threading.Event()
    ours.set()
    monkeypatch.setattr(LeaderElection, "renew", lambda election: ours.is_set())
    monkeypatch.setattr(LeaderElection, "is_leader", lambda election: ours.is_set())
    monkeypatch.setattr(LeaderElection, "renew_after", lambda election: 0.01)
    made: list[Any] = []

    def source() -> Any:
        made.append(once(str(len(made)))())
        return made[-1]

    with open_broker(f"sqlite:///{tmp_path}/channels.db") as broker, broker.subscribe("prices") as subscription:
        feed = make(source, broker=broker).start()
        for number in range(3):
            assert texts(subscription, 1) == [str(number)]
            ours.clear()
            assert made[-1].over.wait(90)
            eventually(lambda: feed.state == "standby")
            ours.set()
        assert texts(subscription, 1) == ["3"]
        assert feed.snapshot()["restarts"] == 0
        feed.stop()


@pytest.mark.slow
def test_a_forked_child_starts_its_own_feed(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.unit.channels.processes", "fork_feed"]
    run = subprocess.run(
        [*command, f"sqlite:///{tmp_path}/channels.db"], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["feeding", "0", "stopped", "standby", "stopped", "feeding"]


@each_case(
    "error, options",
    [
        (TypeError, {"source": "http://127.0.0.1/"}),
        (ChannelError, {"channel": "a*"}),
        (SettingsError, {"lease": 0}),
        (SettingsError, {"lease": "5"}),
        (TypeError, {"broker": "memory://"}),
    ],
)
def test_what_can_t_work_is_refused_at_once(error: type[Exception], options: dict[str, Any], broker: Broker) -> None:
    given: dict[str, Any] = {"channel": "a", "source": list, "broker": broker, **options}
    with pytest.raises(error):
        ChannelFeed(given.pop("broker"), given.pop("channel"), given.pop("source"), **given)


def test_errors_of_events_are_logged_without_their_data(
    broker: Broker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def transform(event: Event) -> Any:
        raise EventError("data", "secret", "is not what it should be")

    with caplog.at_level(logging.DEBUG, "ssesync"):
        feed = make(once("1"), transform=transform).start()
        eventually(lambda: feed.snapshot()["skipped"] == 1)
    assert "secret" not in caplog.text


def test_an_answer_that_is_slow_to_come_is_not_waited_for_by_a_stop(upstream: FakeSSEServer, make: Make) -> None:
    never = threading.Event()
    upstream.add(Answer().wait_for(never))
    feed = make(lambda: EventSource(upstream.url)).start()
    upstream.wait_for_requests(1)
    feed.stop()
    assert feed_threads() == []
