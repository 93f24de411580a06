"""Broadcast groups: detached clients get what served ones get, however slowly they read and whenever they come."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ssesync import Broker, BrokerUnavailable, CloseReason, Event, Settings
from ssesync.channels import channel_source
from ssesync.channels.log import Page
from ssesync.channels.message import compiled
from ssesync.detached.connection import Connection, Handover
from ssesync.detached.connections import connections
from ssesync.detached.state import State
from ssesync.wire import Decoder

from .clients import (
    HEAD,
    TIMEOUT,
    Client,
    Join,
    await_events,
    await_that,
    begin_anew,
    reactor_held_up,
    set_limits,
    turn,
)


def test_clients_of_any_channels_are_one_group_and_get_what_they_have_subscribed_to(broker: Broker, join: Join):
    a, b, both = join(broker, "a"), join(broker, "a"), join(broker, "a", "b")
    turn()
    assert a.connection.group is b.connection.group is both.connection.group
    assert broker.subscriber_count("a", local=True) == 3
    assert broker.subscriber_count("b", local=True) == 1
    broker.publish("a", "1")
    broker.publish("b", "2")
    broker.publish("a", "3")
    await_events(2, a, b)
    await_events(3, both)
    assert a.data == b.data == ["1", "3"]
    assert both.data == ["1", "2", "3"]


def test_equal_functions_of_each_view_call_share_a_group_and_closures_do_not(memory: Broker, join: Join):
    def view(symbol: str) -> tuple[Client, Client]:
        plain = join(memory, "a", overflow="coalesce", coalesce=lambda event: event.json()["symbol"])
        bound = join(memory, "a", overflow="coalesce", coalesce=lambda event: event.json()[symbol])
        return plain, bound

    (one, own), (other, others) = view("x"), view("y")
    assert one.connection.group is other.connection.group
    assert own.connection.group is not others.connection.group


def test_patterns_count_and_deliver(broker: Broker, join: Join):
    client = join(broker, patterns=["room:*"])
    turn()
    broker.publish("room:1", "in")
    broker.publish("hall", "out")
    broker.publish("room:2", "in too")
    await_events(2, client)
    assert client.data == ["in", "in too"]


def test_a_client_gets_its_head_then_its_first_events_then_what_it_missed_then_what_comes(broker: Broker, join: Join):
    seen = broker.publish("a", "seen")
    broker.publish("a", "missed")
    client = join(broker, "a", last_event_id=seen, first=["state"])
    broker.publish("a", "live")
    await_events(3, client)
    assert client.bytes.startswith(HEAD)
    assert client.data == ["state", "missed", "live"]
    assert client.stats is None
    assert client.connection.stats.events == 3
    assert client.subscription.events == 3
    assert not client.subscription.closed


def test_what_is_published_between_subscribing_and_the_handover_comes_once(broker: Broker, join: Join):
    other = join(broker, "a")
    turn()
    subscription = broker.subscribe("a")
    ids = [broker.publish("a", str(number)) for number in range(3)]
    await_events(3, other)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    handover = Handover(theirs.detach(), False, b"", "late", Settings(), time.monotonic(), 0)
    late = Client.__new__(Client)
    late.reason = late.stats = None
    subscription._source.detach(handover, late)
    broker.publish("a", "3")
    decoder, events = Decoder(), list[Event]()
    ours.settimeout(TIMEOUT)
    with ours:
        while len(events) < 4:
            events += decoder.feed(ours.recv(4096))
    assert [event.data for event in events] == ["0", "1", "2", "3"]
    assert [event.id for event in events[:3]] == ids


def test_an_unknown_id_gets_one_reset_and_goes_live(broker: Broker, join: Join):
    client = join(broker, "a", last_event_id="nobody-7")
    await_events(1, client)
    broker.publish("a", "live")
    await_events(2, client)
    assert [event.type for event in client.events] == ["reset", "message"]


@pytest.mark.slow
def test_a_slow_reader_catches_up_from_the_log_and_loses_nothing(broker: Broker, join: Join):
    slow, quick = join(broker, "a", max_pending_events=5, patience=60), join(broker, "a")
    turn()
    expected = [f"{number} ".ljust(500, "x") for number in range(300)]
    for each in expected:
        broker.publish("a", each)
    await_events(300, quick)
    assert len(slow.events) < 300
    await_events(300, slow)
    assert slow.data == quick.data == expected
    broker.publish("a", "last")
    await_events(301, slow, quick)
    await_that(lambda: slow.connection.state is State.IN_SYNC, "it is in sync again")
    broker.publish("a", "very last")
    await_events(302, slow, quick)
    assert slow.data == quick.data


def test_only_a_client_that_does_not_read_is_ended(memory: Broker, join: Join):
    stuck, quick = join(memory, "a", max_pending_events=5, patience=0.01), join(memory, "a")
    turn()
    sent = 0
    while stuck.reason is None:
        memory.publish("a", f"{sent} ".ljust(500, "x"))
        sent += 1
        await_events(sent, quick)
    assert stuck.reason is CloseReason.OVERFLOW
    assert memory.snapshot()["disconnected"] == 1
    assert len(quick.events) == sent
    await_that(lambda: stuck.is_at_end, "the connection has ended", stuck)
    again = join(memory, "a", last_event_id=stuck.last_event_id)
    await_events(sent - len(stuck.events), again)
    assert stuck.data + again.data == quick.data


def test_the_oldest_are_dropped_where_the_policy_says_so_and_their_number_is_sent(memory: Broker, join: Join):
    client = join(memory, "a", overflow="drop_oldest", max_pending_events=5)
    turn()
    for number in range(200):
        memory.publish("a", f"{number} ".ljust(500, "x"))
        turn()
    await_that(lambda: client.data and str(client.data[-1]).startswith("199"), "the newest came", client)
    dropped = [event.json()["count"] for event in client.events if event.type == "dropped"]
    numbers = [int(str(event.data).split()[0]) for event in client.events if event.type == "message"]
    assert sum(dropped) == 200 - len(numbers) > 0
    assert numbers == sorted(numbers)
    assert numbers[-5:] == [195, 196, 197, 198, 199]
    assert memory.snapshot()["dropped"] == sum(dropped)


def test_the_newest_of_each_key_is_kept_where_the_policy_says_so(memory: Broker, join: Join):
    client = join(memory, "a", overflow="coalesce", coalesce=key_of, max_pending_events=5)
    turn()
    for number in range(200):
        memory.publish("a", f"{number % 3} {number} ".ljust(500, "x"))
        turn()
    await_that(lambda: client.data and " 199 " in str(client.data[-1]), "the newest came", client)
    assert [str(data).split()[1] for data in client.data[-3:]] == ["197", "198", "199"]
    assert memory.snapshot()["coalesced"] == 200 - len(client.events) > 0


def key_of(event: Event) -> str:
    return str(event.data).split()[0]


def test_a_revoked_key_ends_its_clients_alone(broker: Broker, join: Join):
    ours, theirs = join(broker, "a", key="ada"), join(broker, "a", key="bob")
    turn()
    broker.revoke("ada")
    await_that(lambda: ours.reason, "it ends", ours)
    assert ours.reason is CloseReason.REVOKED
    broker.publish("a", "on")
    await_events(1, theirs)
    assert theirs.data == ["on"]


def test_closing_the_broker_ends_its_clients(broker: Broker, join: Join):
    client = join(broker, "a")
    turn()
    broker.close()
    await_that(lambda: client.reason, "it ends", client)
    assert client.reason is CloseReason.SHUTDOWN


def test_a_subscription_ends_its_client_after_the_handover_too(broker: Broker, join: Join):
    client = join(broker, "a")
    turn()
    client.subscription.close()
    await_that(lambda: client.reason, "it ends", client)
    assert client.subscription.reason is CloseReason.CANCELLED
    assert client.subscription.closed


@pytest.mark.parametrize("how", ["revoke", "close", "stop", "cancel"])
def test_what_ends_a_subscription_in_the_middle_of_the_handover_ends_the_connection(
    memory: Broker, join: Join, how: str
):
    """The connection is known to the dispatcher by then, and the subscription still thinks that it has the client."""

    class Late(Client):
        def began(self, connection: Connection) -> None:
            if how == "revoke":
                memory.dispatcher.remove(connection)  # as if it came before this one was listed
                turn()
                memory.revoke("ada")
            elif how == "close":
                memory.dispatcher.remove(connection)
                memory.close()
            elif how == "stop":
                self.subscription.stop("lifetime")
            else:
                self.subscription.cancel("cancelled")

    subscription = memory.subscribe("a", key="ada")
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    late = Late.__new__(Late)
    late.reason = late.stats = None
    late.subscription = subscription
    with ours:
        subscription._source.detach(
            Handover(theirs.detach(), False, b"", "late", Settings(), time.monotonic(), 0), late
        )
        await_that(lambda: late.reason, "it ends")
    expected = {"revoke": CloseReason.REVOKED, "close": CloseReason.SHUTDOWN, "stop": CloseReason.LIFETIME}
    assert late.reason is expected.get(how, CloseReason.CANCELLED)


@pytest.mark.slow
def test_thousands_that_come_back_while_much_is_published_catch_up(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    """That the log takes longer to be read than they have patience is not their fault."""
    read, go_on = type(memory).read, threading.Event()

    def read_late(self: Broker, *args: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # that one hands over
            assert go_on.wait(TIMEOUT)
        return read(self, *args)

    monkeypatch.setattr(type(memory), "read", read_late)
    set_limits(memory, max_events=100_000, max_bytes=100_000_000)
    since = memory.publish("a", "seen")
    for number in range(2_000):
        memory.publish("a", str(number))
    clients = [join(memory, "a", last_event_id=since, buffer=65536, patience=1) for _ in range(20)]
    for number in range(2_000, 3_500):
        memory.publish("a", str(number))
    time.sleep(1.5)
    for number in range(3_500, 4_000):
        memory.publish("a", str(number))
    turn()
    go_on.set()
    await_events(4_000, *clients)
    for client in clients:
        assert client.data == [str(number) for number in range(4_000)]


def test_a_burst_beyond_what_may_wait_for_all_and_what_the_log_keeps_is_a_reset_for_all(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(channel_source, "_EVENTS", 100)
    set_limits(memory, max_events=10)
    clients = [join(memory, "a"), join(memory, "a", overflow="drop_oldest")]
    turn()
    with reactor_held_up():
        for number in range(200):
            memory.publish("a", str(number))
    for client in clients:
        await_events(1, client)
        memory.publish("a", "after")
        await_that(lambda client=client: client.data[-1] == "after", "it is live", client)  # type: ignore[misc]
        assert client.events[0].type == "reset"
        assert client.reason is None


def test_a_log_that_fails_otherwise_closes_a_client_that_reads_it(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    calls, read = [], memory.read

    def fail(*arguments: Any) -> Page:
        calls.append(arguments)
        if len(calls) > 1:  # the first page is read before the hand-over
            raise ValueError("a driver's own error")
        return read(*arguments)

    since = memory.publish("a", "before")
    for _ in range(150):
        memory.publish("a", "missed")
    monkeypatch.setattr(memory, "read", fail)
    client = join(memory, "a", last_event_id=since)
    await_that(lambda: client.connection.reason is not None, "it is closed", client)
    assert client.connection.reason is CloseReason.ERROR
    assert "can't be read for detached streams" in caplog.text
    assert "a driver's own error" in caplog.text


def test_what_a_client_has_missed_is_sent_with_the_head_and_no_reader_works_for_it(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    since = memory.publish("a", "before")
    missed = [memory.publish("a", f"missed {number}") for number in range(50)]
    turn()
    threads, read = [], memory.read

    def read_here(*arguments: Any) -> Page:
        threads.append(threading.current_thread())
        return read(*arguments)

    monkeypatch.setattr(memory, "read", read_here)
    client = join(memory, "a", last_event_id=since)
    await_events(50, client)
    assert [event.id for event in client.events] == missed
    assert client.connection.stats.events == 50
    turn()  # published before the client is in its group, the next event would be read from the log too
    memory.publish("a", "live")
    await_events(51, client)
    assert client.connection.stats.events == 51
    assert threads == [threading.main_thread()]


def test_a_log_that_fails_at_the_hand_over_ends_the_subscription(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object) -> Page:
        raise ZeroDivisionError

    since = memory.publish("a", "before")
    memory.publish("a", "missed")
    monkeypatch.setattr(memory, "read", fail)
    with pytest.raises(ZeroDivisionError):
        join(memory, "a", last_event_id=since)


def test_a_group_that_was_silent_for_long_is_not_given_up_at_the_first_burst(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(channel_source, "_EVENTS", 100)
    set_limits(memory, max_events=100_000, max_bytes=100_000_000)
    client = join(memory, "a", max_pending_events=5)
    turn()
    next(iter(memory.broadcast_groups._sources.values())).subscriber._polled -= 10_000
    with reactor_held_up():
        for number in range(200):
            memory.publish("a", str(number))
    await_that(lambda: client.data and client.data[-1] == "199", "all of it came", client)
    assert client.reason is None


def test_no_client_stays_in_dispatcher_and_registry(broker: Broker, join: Join):
    clients = [join(broker, "a", last_event_id="nobody-1" if number % 2 else "") for number in range(20)]
    for client in clients:
        client.close()
    await_that(lambda: all(client.reason for client in clients), "all ended")
    turn()
    assert len(broker.dispatcher) == 0
    assert not broker.broadcast_groups._sources
    assert not broker.dispatcher._index.names
    assert not broker.dispatcher._keys


def test_a_broker_that_fails_at_the_handover_says_so_and_nothing_has_happened(
    memory: Broker, monkeypatch: pytest.MonkeyPatch
):
    def fail(self: Broker) -> tuple[str, int]:
        raise BrokerUnavailable("away")

    subscription = memory.subscribe("a")
    monkeypatch.setattr(type(memory), "_head", fail)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handover = Handover(theirs.fileno(), False, HEAD, "", Settings(), 0.0, 0)
        with pytest.raises(BrokerUnavailable):
            subscription._source.detach(handover, None)  # type: ignore[arg-type]
    assert not memory.broadcast_groups._sources
    assert len(memory.dispatcher) == 1
    assert not subscription.closed
    subscription.close()


@pytest.mark.parametrize("by", ["channel", "pattern"])
def test_during_the_handover_a_client_counts_once(memory: Broker, by: str):
    counts = []

    class Counted(Client):
        def began(self, connection: Connection) -> None:
            counts.append((memory.subscriber_count("a", local=True), memory.dispatcher.take_changed(every=True)))

    channels, options = (["a"], {}) if by == "channel" else ([], {"patterns": ["*"]})
    clients = [Counted(memory, *channels, **options) for _ in range(2)]
    assert [count for count, _ in counts] == [1, 2]
    if by == "channel":
        assert [changed["a"] for _, changed in counts] == [1, 2]
    assert memory.subscriber_count("a", local=True) == 2
    assert not memory.dispatcher._replaced
    for client in clients:
        client.close()
    await_that(lambda: memory.subscriber_count("a", local=True) == 0, "both are gone")


def test_a_log_that_is_started_anew_resets_each_client_once(memory: Broker, join: Join):
    in_sync, late, slow = join(memory, "a"), join(memory, "a"), join(memory, "a", max_pending_events=5)
    turn()
    for number in range(50):
        memory.publish("a", f"{number} ".ljust(500, "x"))
    await_events(50, in_sync, late)
    turn()
    begin_anew(memory, 3, "a", "a")
    for client in (in_sync, late, slow):
        await_that(lambda client=client: client.last_event_id == "new-5", "the new log's came", client)  # type: ignore[misc]
        assert [event.type for event in client.events].count("reset") == 1
        assert client.data[-2:] == ["new", "new"]


SETS = [("a",), ("b",), ("a", "b"), ("*",), ("a", "*"), ("a", "u:0"), ("a", "u:1"), ("b", "u:*"), ("u:2",)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_by_chance_no_client_has_a_gap_or_a_duplicate(
    broker: Broker, kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
):
    """Clients that come, read a little, stop, leave and come back with their last id, while events come in bursts."""
    if seed % 3 == 2:
        monkeypatch.setattr(channel_source, "_EVENTS", 5)  # so that bursts are left to the log
    chance = random.Random(f"{kind} {seed}")
    order: list[tuple[str, str]] = []
    crowd: list[tuple[tuple[str, ...], Client, int, list[str]]] = []
    size = (40, 2_000)[seed % 2]

    def publish(channel: str) -> None:
        text = f"{len(order)} ".ljust(chance.randint(5, size), "x")
        broker.publish(channel, text)
        order.append((channel, text))

    def come(channels: tuple[str, ...], since: int, got: list[str], last_event_id: str) -> None:
        names, patterns = [[each for each in channels if ("*" in each) is glob] for glob in (False, True)]
        client = Client(broker, *names, patterns=patterns, last_event_id=last_event_id, patience=120,
                        max_pending_events=chance.choice((3, 50)), buffer=chance.choice((2048, 65536)))  # fmt: skip
        crowd.append((channels, client, since, got))

    def expected(channels: tuple[str, ...], since: int) -> list[str]:
        wanted = [compiled(channel) for channel in channels]
        return [text for channel, text in order[since:] if any(each.fullmatch(channel) for each in wanted)]

    def check(channels: tuple[str, ...], client: Client, since: int, got: list[str]) -> list[str]:
        have = got + [str(data) for data in client.data]
        assert have == expected(channels, since)[: len(have)], "a gap or a duplicate"
        return have

    steps = 150 if kind == "memory" else 50
    for _ in range(steps):
        step = chance.random()
        if step < 0.45:
            for _ in range(chance.choice((1, 1, 1, 10))):
                publish(chance.choice(("a", "a", "b", "u:0", "u:1", "u:2")))
        elif step < 0.6 and len(crowd) < 12:
            come(chance.choice(SETS), len(order), [], "")
        elif step < 0.65:
            broker.revoke("nobody")  # which is in the log, and is no client's event
        elif step < 0.9 and crowd:
            _, client, _, _ = chance.choice(crowd)
            client.read(chance.choice((7, 300, 65536)))
        elif crowd:
            channels, client, since, got = crowd.pop(chance.randrange(len(crowd)))
            have = check(channels, client, since, got)
            client.close()
            if client.last_event_id:
                come(channels, since, have, client.last_event_id)
    for channels, client, since, got in crowd:
        wanted = len(expected(channels, since)) - len(got)
        await_events(wanted, client)
        assert check(channels, client, since, got) == expected(channels, since)
        client.close()
    for _, client, _, _ in crowd:
        await_that(lambda client=client: client.reason, "it ended")  # type: ignore[misc]
        assert client.reason is CloseReason.CLIENT_GONE


def test_a_forked_child_has_groups_of_its_own(memory: Broker, join: Join):
    client = join(memory, "a")
    turn()
    child = os.fork()
    if not child:
        os._exit(bool(memory.broadcast_groups._sources) or len(memory.dispatcher))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    memory.publish("a", "on")
    await_events(1, client)


@pytest.mark.parametrize("how", ["leaves", "is revoked"])
def test_a_client_that_comes_while_the_last_of_a_group_leaves_misses_nothing(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch, how: str
):
    last = join(memory, "a", key="ada")
    turn()
    memory.publish("a", "0")
    await_events(1, last)
    register = memory.dispatcher.register

    def late(*arguments: Any) -> tuple[str, int]:
        if how == "leaves":
            last.connection.cancel()
            await_that(lambda: last.reason, "it has left")
        else:
            memory.revoke("ada")
        memory.publish("a", "1")  # which is not offered to the group
        return register(*arguments)

    monkeypatch.setattr(memory.dispatcher, "register", late)
    with reactor_held_up() if how == "is revoked" else contextlib.nullcontext():
        client = join(memory, "a")
    monkeypatch.undo()
    turn()
    memory.publish("a", "2")
    await_events(2, client)
    assert client.data == ["1", "2"]


@pytest.mark.parametrize("slow", [False, True])
def test_what_is_published_after_a_revocation_does_not_reach_the_revoked_client(broker: Broker, join: Join, slow: bool):
    ours, theirs = join(broker, "a", key="ada"), join(broker, "a", key="bob")
    turn()
    if slow:
        broker.publish("a", "x" * 100_000)
        await_that(lambda: ours.connection.waits, "it takes no more")
        turn()
    with reactor_held_up():
        broker.publish("a", "before")
        broker.revoke("ada")
        broker.publish("a", "after")
    await_events(2 + slow, theirs)
    await_that(lambda: ours.is_at_end, "it ends", ours)
    assert ours.reason is CloseReason.REVOKED
    assert "after" not in ours.data


def test_a_group_whose_last_client_can_not_be_admitted_is_forgotten(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    client = join(memory, "a")
    turn()
    (source,) = memory.broadcast_groups._sources.values()
    assert source.group in connections()._groups

    def fail() -> None:
        client.connection.cancel()
        await_that(lambda: client.reason, "the other has left")
        raise BrokerUnavailable("away")

    monkeypatch.setattr(source, "start", fail)
    with pytest.raises(BrokerUnavailable):
        join(memory, "a")
    turn()
    assert not memory.broadcast_groups._sources
    assert source.group not in connections()._groups


def test_functions_that_differ_in_a_keyword_s_default_or_can_t_be_hashed_are_distinguished(memory: Broker, join: Join):
    def by(field: str) -> Callable[[Event], Any]:
        return lambda event, *, name=field: event.json()[name]

    class Key:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, event: Event) -> Any:
            return event.data

    for function in (by("a"), by("b"), Key()):
        join(memory, "a", overflow="coalesce", coalesce=function)
    assert len(memory.broadcast_groups._sources) == 3
