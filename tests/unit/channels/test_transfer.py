"""Clients that move between two brokers on one log, as between two processes: each event once, whatever happens."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync import Broker, BrokerUnavailable, CloseReason, Event, Settings, open_broker
from ssesync.channels.broker import open_brokers
from ssesync.channels.dispatcher import Registration
from ssesync.channels.envelope import Envelope
from ssesync.channels.revocations import Revocations
from ssesync.channels.transfer import Frozen, FrozenClient
from ssesync.detached.connections import connections
from ssesync.detached.source import Position
from ssesync.detached.state import State
from ssesync.detached.transfer import plain_settings, settings_from
from ssesync.server.registry import streams

from ...cases import each_case
from .clients import TIMEOUT, Client, await_events, await_that, turn

OPENED: list[Client] = []


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Broker, Broker]]:
    """The brokers of two processes, in one: each has its own listener and its own clients."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    first, second = open_broker(url), open_broker(url)
    yield first, second
    while OPENED:
        OPENED.pop().close()
    first.close()
    second.close()
    turn()


def on_reactor(call: Callable[[], Any]) -> Any:
    """Call on the reactor's thread, and wait for the result."""
    results: list[Any] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        finally:
            done.set()

    connections().call_soon(run)
    assert done.wait(TIMEOUT)
    return results[0]


def joined(broker: Broker, *channels: str, **options: Any) -> Client:
    """A client to whose subscription the application does not refer."""
    client = Client(broker, *channels, **options)
    OPENED.append(client)
    forget(client)
    turn()
    return client


def forget(client: Client) -> None:
    client.subscription = None  # type: ignore[assignment]


def freeze(broker: Broker, count: int = 1) -> list[Frozen]:
    found: list[Frozen] = []

    def all_are() -> bool:
        found.extend(on_reactor(lambda: broker.broadcast_groups.freeze(count - len(found), 1 << 20)))
        return len(found) == count

    await_that(all_are, f"{count} clients were frozen")
    return found


def since(broker: Broker) -> Position:
    return Position(broker.dispatcher.epoch, broker.dispatcher.handled)


def sent(client: FrozenClient) -> FrozenClient:
    """The client as the other process gets it."""
    plain = json.loads(json.dumps(client.to_plain()))
    return FrozenClient.from_plain(plain, os.dup(client.connection.fd), client.connection.unsent)


def move(source: Broker, target: Broker, count: int = 1) -> None:
    position = since(source)
    for each in freeze(source, count):
        prepared = target.broadcast_groups.prepare(sent(each.client), position)
        on_reactor(each.release)
        prepared.commit()
    turn()


def publish(broker: Broker, *numbers: int, channel: str = "a") -> None:
    for number in numbers:
        broker.publish(channel, str(number))


def test_a_client_that_comes_from_another_process_wakes_the_listener_of_an_idle_one(
    two: tuple[Broker, Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    joined(first, "a")
    calls: list[int] = []
    monkeypatch.setattr(second, "_attached", lambda: calls.append(len(second.dispatcher)))
    move(first, second)
    assert calls == [1]  # after it was registered


def test_a_client_moves_and_gets_each_event_once(two: tuple[Broker, Broker]):
    first, second = two
    client = joined(first, "a")
    publish(first, 1, 2)
    await_events(2, client)
    for number, (source, target) in enumerate([two, (second, first), two], 3):
        move(source, target)
        publish(first, number)
        await_events(number, client)
    assert client.data == ["1", "2", "3", "4", "5"]
    assert client.reason is CloseReason.TRANSFERRED
    assert client.stats is not None
    assert client.stats.events == 2
    assert first.subscriber_count("a", local=True) == 0
    assert second.subscriber_count("a", local=True) == 1


def test_events_that_are_published_while_nobody_serves_it_come_from_the_log(two: tuple[Broker, Broker]):
    client = joined(two[0], "a")
    [frozen] = freeze(two[0])
    publish(two[0], *range(50))
    prepared = two[1].broadcast_groups.prepare(sent(frozen.client), since(two[0]))
    publish(two[1], *range(50, 100))
    on_reactor(frozen.release)
    prepared.commit()
    publish(two[0], 100)
    await_events(101, client)
    assert client.data == [str(number) for number in range(101)]


def test_a_client_that_is_not_acknowledged_is_served_again(two: tuple[Broker, Broker]):
    client = joined(two[0], "a")
    [frozen] = freeze(two[0])
    prepared = two[1].broadcast_groups.prepare(sent(frozen.client), since(two[0]))
    publish(two[0], 1, 2)
    turn()
    client.read()
    assert client.data == []
    prepared.undo()
    on_reactor(frozen.thaw)
    publish(two[0], 3)
    await_events(3, client)
    assert client.data == ["1", "2", "3"]
    assert two[1].subscriber_count("a", local=True) == 0
    assert client.connection.state in (State.IN_SYNC, State.LAGGING)


def test_the_unsent_bytes_of_a_slow_client_go_with_it(two: tuple[Broker, Broker]):
    client = joined(two[0], "a")
    text = "x" * 3000
    for number in range(60):
        two[0].publish("a", f"{number} {text}")
    await_that(lambda: client.connection.unsent is not None, "the client has unsent bytes")
    [frozen] = freeze(two[0])
    prepared = two[1].broadcast_groups.prepare(sent(frozen.client), since(two[0]))
    on_reactor(frozen.release)
    prepared.commit()
    publish(two[1], 60)
    await_events(61, client)
    assert [data and int(data.split()[0]) for data in client.data] == list(range(61))


def test_dropped_events_are_reported_once_and_not_read_from_the_log(two: tuple[Broker, Broker]):
    client = joined(two[0], "a", overflow="drop_oldest", max_pending_events=5)
    text = "x" * 3000
    for number in range(80):
        last = int(two[0].publish("a", f"{number} {text}").rpartition("-")[2])
    await_that(lambda: two[0].dispatcher.handled >= last, "all events were offered")
    await_that(lambda: first_counts(two[0])["dropped"] > 0, "events were dropped")
    dropped = first_counts(two[0])["dropped"]
    move(two[0], two[1])
    publish(two[1], 80)
    await_that(lambda: client.data[-1:] == ["80"], "the last event came", client)
    reported = [json.loads(event.data or "")["count"] for event in client.events if event.type == "dropped"]
    assert sum(reported) == dropped
    assert len([event for event in client.events if event.type == "message"]) == 81 - dropped


def test_the_position_after_dropped_events_is_one_of_the_channels(two: tuple[Broker, Broker]):
    """Redis knows no other ones, as its numbers have gaps."""
    first, _ = two
    joined(first, "a", overflow="drop_oldest", max_pending_events=5)
    known = set()
    for _ in range(80):
        known.add(int(first.publish("a", "x" * 3000).rpartition("-")[2]))
        first.publish("other", "")
    await_that(lambda: first_counts(first)["dropped"] > 0, "events were dropped")
    [frozen] = freeze(first)
    on_reactor(frozen.thaw)
    assert frozen.client.place.cursor in known


def first_counts(broker: Broker) -> dict[str, Any]:
    turn()
    return broker.snapshot()


def test_requests_to_end_wait_until_it_is_known_who_serves_the_client(two: tuple[Broker, Broker]):
    kept, ended = joined(two[0], "a"), joined(two[0], "a", key="ann")
    frozen = {each.client.place.key: each for each in freeze(two[0], 2)}
    two[0].revoke("ann")
    turn()
    assert ended.reason is None
    on_reactor(frozen["ann"].thaw)
    await_that(lambda: ended.reason is CloseReason.REVOKED, "the client was revoked")
    kept.connection.stop(CloseReason.SHUTDOWN)
    kept.connection.cancel(CloseReason.REVOKED)
    turn()
    assert kept.reason is None
    on_reactor(frozen[None].thaw)
    await_that(lambda: kept.reason is CloseReason.REVOKED, "the request to end at once counted")


def test_a_failure_leaves_no_client_frozen(two: tuple[Broker, Broker]):
    first, _ = two
    clients = [joined(first, "a") for _ in range(3)]
    turns = iter(range(3))

    def wanted(connection: Any) -> bool:
        if next(turns) == 2:
            raise RuntimeError("a test fails it")
        return True

    def fail() -> str:
        with pytest.raises(RuntimeError) as raised:
            first.broadcast_groups.freeze(10, 1 << 20, wanted)
        return str(raised.value)

    assert on_reactor(fail) == "a test fails it"
    publish(first, 1)
    await_events(1, *clients)


def test_a_client_that_was_revoked_meanwhile_is_not_prepared(two: tuple[Broker, Broker]):
    first, second = two
    joined(second, "other")  # so that the second process listens
    client = joined(first, "a", key="ann")
    position = since(first)
    [frozen] = freeze(first)
    second.revoke("ann")
    await_that(lambda: second.dispatcher.handled > position.seq, "the second process has handled it")
    with pytest.raises(RuntimeError, match="revoked"):
        second.broadcast_groups.prepare(sent(frozen.client), position)
    on_reactor(frozen.thaw)
    await_that(lambda: client.reason is CloseReason.REVOKED, "the client was revoked where it is")


def test_another_log_takes_no_client(two: tuple[Broker, Broker], tmp_path: Path):
    joined(two[0], "a")
    [frozen] = freeze(two[0])
    with open_broker(f"sqlite:///{tmp_path / 'other.db'}") as other, open_broker("memory://") as memory:
        for each in other, memory:
            with pytest.raises(BrokerUnavailable, match="has not the log"):
                each.broadcast_groups.prepare(sent(frozen.client), since(two[0]))
    on_reactor(frozen.thaw)


def test_streams_that_the_application_may_end_stay(two: tuple[Broker, Broker]):
    held = Client(two[0], "a")
    OPENED.append(held)
    turn()
    coalescing = joined(two[0], "a", overflow="coalesce", coalesce=lambda event: event.data)
    assert on_reactor(two[0].broadcast_groups.movable) == 0
    assert on_reactor(lambda: two[0].broadcast_groups.freeze(10, 1 << 20)) == []
    forget(held)
    assert on_reactor(two[0].broadcast_groups.movable) == 1
    assert coalescing.connection.state is State.IN_SYNC


def test_a_closed_channel_ends_the_stream_wherever_it_is(two: tuple[Broker, Broker]):
    client = joined(two[0], "a")
    publish(two[0], 1)
    await_events(1, client)
    move(*two)
    two[0].publish("a", "2", final=True)
    await_that(lambda: client.read() or client.is_at_end, "the stream ended")
    await_that(lambda: client.is_at_end, "the stream ended", client)
    assert client.data == ["1", "2"]


def test_the_lifetime_and_the_figures_go_on(two: tuple[Broker, Broker]):
    client = joined(two[0], "a", max_lifetime=1000.0)
    publish(two[0], 1)
    await_events(1, client)
    [frozen] = freeze(two[0])
    values = sent(frozen.client).connection
    assert values.lifetime is not None
    assert 890 < values.lifetime < 1110
    assert values.events == 1
    values.lifetime = 0.0
    prepared = two[1].broadcast_groups.prepare(FrozenClient(values, frozen.client.place), since(two[0]))
    [described] = [each for each in streams.snapshot()["streams"] if each["name"] == "test"]
    assert described["events"] == 1
    on_reactor(frozen.release)
    prepared.commit()
    await_that(lambda: client.is_at_end, "its lifetime was over", client)


def test_the_values_of_a_client_are_plain_and_complete(two: tuple[Broker, Broker]):
    joined(
        two[0], "a", "b", patterns=["c:*"], key="ann", until_type="bye", patience=3.5, keep_alive=7.0,
        envelope=Envelope(b"<", b"|", b">", b"done"), error_event=Event("e", type="t"),
    )  # fmt: skip
    [frozen] = freeze(two[0])
    received = sent(frozen.client)
    assert received.place == frozen.client.place
    os.close(received.connection.fd)
    received.connection.fd = frozen.client.connection.fd
    assert received.connection == frozen.client.connection
    for name in frozen.client.to_plain():
        if name.startswith("place_") or name in ("envelope",):
            continue
        short = frozen.client.to_plain()
        del short[name]
        with pytest.raises(ValueError, match=name):
            FrozenClient.from_plain(short, -1, b"")
    on_reactor(frozen.thaw)


def test_an_earlier_version_gets_the_parts_of_an_envelope_that_it_knows(two: tuple[Broker, Broker]):
    expected = {
        Envelope(b"<", b"", b">"): ["<", "", ">"],
        Envelope(b"<"): ["<", "", ""],
        Envelope(failed=b"f"): ["", "", "", "", "f"],
    }
    for envelope in expected:
        joined(two[0], "a", envelope=envelope)
    for frozen in freeze(two[0], 3):
        plain, envelope = frozen.client.to_plain(), frozen.client.place.envelope
        assert envelope is not None
        assert plain["envelope"] == expected.pop(envelope)
        assert FrozenClient.from_plain(plain, -1, b"").place.envelope == envelope
        on_reactor(frozen.thaw)


@each_case(
    "settings",
    [Settings(), Settings(cors_origins=("https://a.example",), keep_alive=None), Settings(error_event=Event("x"))],
)
def test_settings_are_the_same_on_the_other_side(settings: Settings):
    received = settings_from(json.loads(json.dumps(plain_settings(settings))) | {"of a later version": 1})
    assert received == settings
    assert settings_from(plain_settings(settings)) is received


def test_revocations_are_kept_for_a_while(two: tuple[Broker, Broker], monkeypatch: pytest.MonkeyPatch):
    revocations = Revocations(two[0])
    revocations.begin("e", 3)
    ann, bob = (Registration(("a",), ("b:*",), key, None) for key in ("ann", "bob"))  # type: ignore[arg-type]
    revocations.note(5, {"revoke": "ann", "channel": "b:1"})
    revocations.note(6, {"revoke": "bob", "channel": "c"})
    assert revocations.include(ann, Position("e", 4))
    assert not revocations.include(ann, Position("e", 5))
    assert not revocations.include(bob, Position("e", 4))
    assert not revocations.include(Registration(("a",), (), None, None), Position("e", 0))  # type: ignore[arg-type]
    later = time.monotonic() + 100
    monkeypatch.setattr(time, "monotonic", lambda: later)
    revocations.note(7, {"revoke": "cid"})
    assert revocations.include(bob, Position("e", 5))  # it is not known any more
    assert not revocations.include(bob, Position("e", 7))
    revocations.begin("new", 1)
    assert not revocations.include(ann, Position("new", 1))
    assert revocations.include(ann, Position("e", 7))  # the log was begun anew


def test_a_process_that_begins_to_listen_knows_earlier_revocations(two: tuple[Broker, Broker]):
    first, second = two
    client, other = joined(first, "a", key="ann"), joined(first, "a", key="bob")
    position = since(first)
    frozen = freeze(first, 2)
    first.revoke("ann")
    await_that(lambda: first.dispatcher.handled > position.seq, "the first process has handled it")
    with pytest.raises(RuntimeError, match="revoked"):
        second.broadcast_groups.prepare(sent(frozen[0].client), position)
    prepared = second.broadcast_groups.prepare(sent(frozen[1].client), position)
    on_reactor(frozen[0].thaw)
    on_reactor(frozen[1].release)
    prepared.commit()
    await_that(lambda: client.reason is CloseReason.REVOKED, "the client was revoked where it is")
    second.publish("a", "1")
    await_events(1, other)


def test_the_brokers_of_the_process_are_found(two: tuple[Broker, Broker]):
    assert set(two) <= set(open_brokers())
    two[0].close()
    assert two[0] not in open_brokers()
