"""Detached clients whose channels are closed: each gets its last event, and then its end, in whatever state it is."""

from __future__ import annotations

import random
import socket
import time

import pytest

from ssesync import Broker, CloseReason, Settings
from ssesync.channels import channel_source
from ssesync.detached.connection import Connection, Handover
from ssesync.detached.state import State

from .clients import Client, Join, await_events, await_that, begin_anew, reactor_held_up, set_limits, turn


def await_ends(*clients: Client) -> None:
    await_that(lambda: all(client.is_at_end for client in clients), "they end", *clients)
    await_that(lambda: all(client.reason for client in clients), "their ends are known")
    assert {client.reason for client in clients} == {CloseReason.DONE}


def test_clients_end_when_all_of_their_own_channels_are_closed(memory: Broker, join: Join) -> None:
    a, b, both, other = join(memory, "a"), join(memory, "b"), join(memory, "a", "b"), join(memory, "b", "c")
    pattern = join(memory, "a", patterns=["b*"])
    turn()
    memory.publish("a", "1")
    memory.publish("a", "2", final=True)
    await_ends(a)
    assert a.data == ["1", "2"]
    late = join(memory, "a", "b")
    memory.publish("b", "3", final=True)
    await_ends(b, both, late)
    assert (b.data, both.data, late.data) == (["3"], ["1", "2", "3"], ["3"])
    await_events(1, other)
    await_events(3, pattern)
    assert other.reason is pattern.reason is None
    index = next(iter(memory.broadcast_groups._sources.values()))._index
    assert set(index.closed) == {"a", "b"}
    other.close()
    await_that(lambda: set(index.closed) == {"a"}, "a closed channel that no client has is forgotten")


def test_a_client_that_has_not_taken_all_ends_after_it_has(memory: Broker, join: Join) -> None:
    large = "x" * 300_000
    draining, lagging = join(memory, "a"), join(memory, "b", max_pending_events=2, patience=60)
    turn()
    memory.publish("a", large, final=True)
    memory.publish("b", large)
    await_that(lambda: lagging.connection.state is State.DRAINING, "it takes no more")
    for number in range(20):
        memory.publish("b", str(number))
    memory.publish("b", "last", final=True)
    turn()
    assert draining.connection.state is State.ENDING
    assert lagging.connection.state is State.LAGGING
    await_ends(draining, lagging)
    assert draining.data == [large]
    assert lagging.data == [large, *map(str, range(20)), "last"]


@pytest.mark.parametrize("distinct", [False, True])
def test_a_burst_that_is_read_from_the_log_ends_all_clients(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch, distinct: bool
) -> None:
    monkeypatch.setattr(channel_source, "_EVENTS", 5)
    clients = [join(memory, "a"), *([join(memory, "a", "b")] if distinct else [join(memory, "a")])]
    turn()
    with reactor_held_up():
        for number in range(50):
            memory.publish("a", str(number))
        memory.publish("b", "last of b", final=True)
        memory.publish("a", "last", final=True)
    await_ends(*clients)
    for client in clients:
        expected = [*map(str, range(50)), *(["last of b"] if client is clients[1] and distinct else []), "last"]
        assert client.data == expected


def test_a_burst_whose_final_event_was_lost_from_the_log_ends_all_clients(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_source, "_EVENTS", 5)
    set_limits(memory, max_events=10)
    clients = [join(memory, "a"), join(memory, "a", overflow="drop_oldest")]
    turn()
    with reactor_held_up():
        for number in range(50):
            memory.publish("a", str(number))
        memory.publish("a", "last", final=True)
    await_ends(*clients)
    for client in clients:
        assert client.events[0].type == "reset"


def test_clients_end_where_a_log_that_began_anew_has_closed_their_channel(memory: Broker, join: Join) -> None:
    client, other = join(memory, "a"), join(memory, "b")
    turn()
    begin_anew(memory, 4, closed="a")
    await_ends(client)
    await_events(1, other)
    assert {event.type for event in client.events} == {"reset"}
    assert other.reason is None


def test_a_final_event_between_subscribing_and_the_hand_over_is_not_lost(memory: Broker) -> None:
    def hand_over(subscription: object, record: Client) -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        record.socket, record.reason, record.stats = ours, None, None
        handover = Handover(theirs.detach(), False, b"", "late", Settings(), time.monotonic(), 0)
        subscription._source.detach(handover, record)  # type: ignore[attr-defined]

    class Publishing(Client):
        def began(self, connection: Connection) -> None:
            memory.publish(self.channel, "last", final=True)

    for channel, when in (("a", "before"), ("b", "during"), ("c", "taken")):
        record = Publishing.__new__(Publishing)
        record.channel = channel  # type: ignore[attr-defined]
        subscription = memory.subscribe(channel)
        if when != "during":
            memory.publish(channel, "last", final=True)
            record.began = lambda connection: None  # type: ignore[method-assign]
        if when == "taken":
            assert len(subscription.take(0) or ()) == 1
        hand_over(subscription, record)
        await_that(lambda record=record: record.reason, "it ends")  # type: ignore[misc]
        assert record.reason is CloseReason.DONE
        assert record.socket.recv(1000).count(b"data: last") == (when != "taken")
        record.socket.close()


def test_an_event_of_a_type_ends_the_clients_that_want_that_and_no_others(memory: Broker, join: Join) -> None:
    ends, goes_on, elsewhere = (
        join(memory, "a", until_type="end"),
        join(memory, "a"),
        join(memory, "b", until_type="end"),
    )
    turn()
    with reactor_held_up():
        for text, kind in (("1", None), ("2", "end"), ("3", "end"), ("4", None)):
            memory.publish("a", text, type=kind)
        ahead = join(memory, "a", until_type="end")
        memory.publish("a", "5")
    await_ends(ends)
    await_events(5, goes_on)
    await_events(1, ahead)
    assert ends.data == ["1", "2"]
    assert goes_on.data == ["1", "2", "3", "4", "5"]
    assert ahead.data == ["5"]
    assert elsewhere.reason is ahead.reason is None
    memory.publish("a", "6", type="end")
    await_ends(ahead)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_by_chance_each_client_gets_everything_and_its_end(broker: Broker, kind: str, seed: int) -> None:
    """Channels that are published to and closed, while clients come, read a little, leave and return."""
    chance = random.Random(f"{kind} {seed}")
    names = [f"{seed}-{number}" for number in range(4)]
    log: dict[str, list[str]] = {name: [] for name in names}
    open_ones, clients = list(names), list[tuple[tuple[str, ...], Client, int]]()
    order: list[tuple[str, str]] = []
    for _ in range(120):
        if open_ones and chance.random() < 0.7:
            name = chance.choice(open_ones)
            text = f"{len(order)} ".ljust(chance.choice((10, 3000)), "x")
            is_final = chance.random() < 0.06
            broker.publish(name, text, final=is_final)
            log[name].append(text)
            order.append((name, text))
            if is_final:
                open_ones.remove(name)
        elif len(clients) < 25:
            wanted = tuple(chance.sample(names, chance.choice((1, 1, 2, 4))))
            options = {"patience": 60, "max_pending_events": chance.choice((2, 50)), "since": "start"}
            client = Client(broker, *wanted, **options)  # type: ignore[arg-type]
            clients.append((wanted, client, 0))
        for _, client, _ in chance.sample(clients, min(3, len(clients))):
            client.read(chance.choice((100, 5000)))
    for name in open_ones:
        broker.publish(name, "closed", final=True)
        order.append((name, "closed"))
    for wanted, client, _ in clients:
        await_that(lambda client=client: client.is_at_end, "it ends", client)  # type: ignore[misc]
        await_that(lambda client=client: client.reason, "its end is known")  # type: ignore[misc]
        assert client.reason is CloseReason.DONE
        assert client.data == [text for name, text in order if name in wanted]
        client.close()
    turn()
    assert len(broker.dispatcher) == 0
