"""Clients with channels of their own, ``user:1`` and ``news``, cost little more than those that share all channels."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ssesync import Broker, CloseReason
from ssesync.channels import channel_source
from ssesync.channels.channel_source import ChannelSource
from ssesync.channels.subscriber import Subscriber
from ssesync.detached.connection import Connection
from ssesync.detached.connections import connections
from ssesync.detached.source import Position
from ssesync.detached.state import State
from ssesync.wire.encoder import KEEP_ALIVE

from .clients import TIMEOUT, Client, Join, await_events, await_that, begin_anew, reactor_held_up, set_limits, turn

ROOT = Path(__file__).parents[3]

# Makes clients of a kind, over socket pairs and the process's own reactor, and prints what one of them takes in bytes.
MEASURE = """
import gc, json, socket, sys, threading, time, tracemalloc
from ssesync import Settings, open_broker
from ssesync.detached.connection import Handover
from ssesync.detached.connections import connections

class Nobody:
    def began(self, connection): pass
    def ended(self, connection, reason, stats): pass

def turn():
    done = threading.Event()
    connections().call_soon(done.set)
    assert done.wait(60)
    gc.collect()

settings, record, pairs = Settings(), Nobody(), []

def make(broker, kind, number):
    # Each request has texts of its own.
    channels, options = ["".join(["ne", "ws"])], {}
    if kind != "shared":
        channels.append(f"user:{number}")
        options = {"patterns": [f"room:{number}:*"]} if kind == "pattern" else {}
        options = {"key": str(number)} if kind == "key" else options
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    pairs.append(ours)
    subscription = broker.subscribe(*channels, **options)
    subscription._source.detach(Handover(theirs.detach(), True, b"head", "x", settings, time.monotonic(), 0), record)

found = {}
for kind in ("shared", "own", "key", "pattern"):
    with open_broker("memory://") as broker:
        for number in range(20):
            make(broker, kind, number)
        turn()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = len(pairs)
        for number in range(20, 220):
            make(broker, kind, number)
        turn()
        found[kind] = (tracemalloc.get_traced_memory()[0] - before) / 200
        tracemalloc.stop()
        assert len(connections()) == 220
    for ours in pairs:
        ours.close()
    pairs.clear()
    while len(connections()):
        time.sleep(0.01)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_client_with_channels_of_its_own_takes_little_more_memory_than_one_that_shares_them():
    """Of 2,000 it was 0.7 kB shared and 6.3 kB with a channel of one's own."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    took: dict[str, float] = json.loads(run.stdout)
    assert took["shared"] < 1_500, took
    for kind in ("own", "key", "pattern"):
        assert took[kind] < took["shared"] + 1_200, took


def test_an_event_for_all_is_offered_once_and_sent_to_all_at_once(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    clients = [join(memory, "news", f"user:{number}") for number in range(20)]
    turn()
    assert memory.dispatcher._sinks_of("news") == (clients[0].connection.registration.sink,)
    assert memory.dispatcher._sinks_of("user:7") == (clients[0].connection.registration.sink,)
    sends: list[int] = []
    send_to_all = connections().send_to_all

    def count(fds: Iterable[int], data: bytes) -> list[tuple[int, int]]:
        members = list(fds)
        sends.append(len(members))
        return send_to_all(members, data)

    monkeypatch.setattr(connections(), "send_to_all", count)
    memory.publish("news", "for all")
    await_events(1, *clients)
    turn()
    assert sends == [20]
    sends.clear()
    memory.publish("user:7", "for one")
    await_events(2, clients[7])
    turn()
    assert sends == [1]
    assert [len(client.events) for client in clients] == [1] * 7 + [2] + [1] * 12
    sends.clear()
    with reactor_held_up():
        for number in range(50):
            memory.publish("news", "for all")
            memory.publish(f"user:{number % 20}", "for one")
    await_that(lambda: sum(sends) >= 20, "all was sent")
    turn()
    # What came while the reactor was busy is one send a client, with all that there was for it.
    assert sorted(sends) == [1] * 20


def test_each_client_gets_all_of_its_channels_in_the_order_of_their_ids(broker: Broker, join: Join):
    chance = random.Random("order")
    own = [f"user:{number}" for number in range(8)]
    clients = [join(broker, "news", name) for name in own]
    clients += [join(broker, "news", patterns=[f"{name}*"]) for name in own]
    everything = join(broker, patterns=["*"])
    ids: dict[str, list[str]] = {name: [] for name in (*own, "all")}
    for _ in range(200):
        channel = chance.choice(("news", *own, "nobody's"))
        event_id = broker.publish(channel, channel)
        ids["all"].append(event_id)
        for name in own if channel == "news" else ids.keys() & {channel}:
            ids[name].append(event_id)
    await_events(200, everything)
    assert [event.id for event in everything.events] == ids["all"]
    for name, client in zip(own * 2, clients, strict=False):
        await_events(len(ids[name]), client)
        assert [event.id for event in client.events] == ids[name]


def test_what_comes_on_a_channel_that_is_new_here_between_subscribing_and_the_handover_is_not_lost(
    broker: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    """The group exists already, and was not offered that channel."""
    join(broker, "news")
    turn()
    register, position = broker.dispatcher.register, broker.dispatcher.position

    def late(*arguments: Any) -> tuple[str, int]:
        broker.publish("user:1", "1")
        await_that(lambda: broker.dispatcher.position > position, "the dispatcher had it")
        return register(*arguments)

    monkeypatch.setattr(broker.dispatcher, "register", late)
    client = join(broker, "news", "user:1")
    monkeypatch.undo()
    broker.publish("user:1", "2")
    await_events(2, client)
    assert client.data == ["1", "2"]


def test_a_burst_that_is_larger_than_a_send_reaches_clients_of_several_channels_whole(memory: Broker, join: Join):
    set_limits(memory, max_bytes=100_000_000)
    buffers = {("a", "b"): 4096, ("a",): 4096, ("b",): 4096, ("a", "b", "c"): 300_000, ("b", "c"): 65536}
    clients = [join(memory, *channels, buffer=size, patience=600) for channels, size in buffers.items()]
    turn()
    assert len({client.connection.group for client in clients}) == 1
    expected: list[tuple[str, str]] = []
    for _ in range(3):
        with reactor_held_up():
            for number in range(60):
                channel = "abb"[number % 3]
                expected.append((channel, f"{len(expected)} ".ljust(4_000, channel)))
                memory.publish(*expected[-1])
    for client, channels in zip(clients, buffers, strict=True):
        wanted = [text for channel, text in expected if channel in channels]
        await_events(len(wanted), client)
        assert client.data == wanted
        assert client.connection.stats.events == len(wanted)


def test_what_each_was_given_is_counted_for_each(memory: Broker, join: Join):
    clients = [join(memory, "news", f"user:{number}") for number in range(3)]
    turn()
    memory.publish("news", "x")
    memory.publish("user:1", "y")
    memory.publish("user:1", "z")
    late = join(memory, "news")
    turn()
    memory.publish("news", "x")
    await_events(2, clients[0], clients[2])
    await_events(4, clients[1])
    await_events(1, late)
    for client in (*clients, late):
        client.connection.stop(CloseReason.DONE)
        await_that(lambda client=client: client.stats, "it has ended")  # type: ignore[misc]
        assert client.stats is not None
        assert client.stats.events == len(client.events)
        await_that(lambda client=client: client.is_at_end, "the end came", client)  # type: ignore[misc]
        events, _, _ = client.bytes.removeprefix(b"head").partition(b"retry: ")
        assert client.stats.bytes == len(events)


@pytest.mark.parametrize("waits", [True, False])
def test_a_client_that_ends_and_has_not_taken_all_gets_nothing_after_its_trailer(
    memory: Broker, join: Join, waits: bool
):
    slow, other = join(memory, "news", "user:1"), join(memory, "news")
    turn()
    if waits:
        memory.publish("news", "x" * 300_000)
        await_that(lambda: slow.connection.waits, "it takes no more")
    slow.connection.stop(CloseReason.LIFETIME, b"data: " + b"y" * 300_000 + b"\n\n")
    await_that(lambda: slow.connection.reason and slow.connection.waits, "it ends")
    for _ in range(3):
        memory.publish("news", "after")
        memory.publish("user:1", "after")
    await_events(3 + waits, other)
    await_that(lambda: slow.is_at_end, "all of it came", slow)
    assert slow.data == ["x" * 300_000] * waits + ["y" * 300_000]
    assert b"after" not in slow.bytes


def read_logs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The channels of which clients read the log by themselves from now on."""
    read: list[tuple[str, ...]] = []
    subscriber_for = ChannelSource.subscriber_for

    def note(self: ChannelSource, connection: Connection, position: Position, *, from_log: bool) -> Subscriber:
        if from_log:
            read.append(connection.registration.channels + connection.registration.patterns)
        return subscriber_for(self, connection, position, from_log=from_log)

    monkeypatch.setattr(ChannelSource, "subscriber_for", note)
    return read


def test_only_clients_of_a_gap_s_channel_read_the_log(memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch):
    clients = [join(memory, "news", f"user:{number}", patience=600) for number in range(5)]
    clients += [join(memory, patterns=["user:3*"], patience=600)]
    slow = join(memory, "news", "user:3", patience=600)
    turn()
    assert len({client.connection.group for client in (*clients, slow)}) == 1
    dispatcher = memory.dispatcher
    memory.publish("news", "x" * 300_000)
    seen = memory.publish("news", "0")
    await_events(2, *clients[:5])
    await_that(lambda: slow.connection.state is State.LAGGING, "it has missed something")
    read = read_logs(monkeypatch)
    epoch, number = seen.split("-")
    with reactor_held_up():
        # As a listener does where the log was trimmed before it came to it: one event is not offered.
        with monkeypatch.context() as patch:
            patch.setattr(dispatcher, "deliver", lambda messages, position: None)
            memory.publish("user:3", "1")
        dispatcher.missed(["user:3"])
        dispatcher.deliver([], int(number) + 1)
        memory.publish("news", "2")
        memory.publish("user:3", "3")
    await_events(5, clients[3], slow)
    await_events(3, *clients[:3], clients[4])
    await_events(2, clients[5])
    assert clients[3].data[1:] == slow.data[1:] == ["0", "1", "2", "3"]
    assert clients[5].data == ["1", "3"]
    assert clients[0].data[1:] == ["0", "2"]
    assert sorted(read) == [("news", "user:3"), ("user:3*",)]
    assert all(event.type == "message" for client in clients for event in client.events)
    assert clients[0].last_event_id == f"{epoch}-{int(number) + 2}"


def test_a_burst_beyond_what_may_wait_is_read_by_each_from_the_log_and_only_clients_that_lost_something_are_reset(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(channel_source, "_EVENTS", 50)
    set_limits(memory, max_events=100)
    busy, quiet, both = join(memory, "busy"), join(memory, "quiet"), join(memory, "busy", "quiet")
    ahead = join(memory, "quiet", "other")
    turn()
    with reactor_held_up():
        memory.publish("quiet", "1")
        for number in range(200):
            memory.publish("busy", str(number))
        memory.publish("quiet", "2")
        late = join(memory, "late", "quiet")
        memory.publish("late", "3")
    for client in (busy, quiet, both, late, ahead):
        await_that(lambda client=client: client.events, "something came", client)  # type: ignore[misc]
    memory.publish("busy", "after")
    memory.publish("quiet", "after")
    for client in (busy, quiet, both, late, ahead):
        await_that(lambda client=client: client.data[-1] == "after", "it is live", client)  # type: ignore[misc]
    await_events(3, quiet, ahead)
    await_events(2, busy, late)
    assert quiet.data == ahead.data == ["1", "2", "after"]
    assert late.data == ["3", "after"]
    assert [event.type for event in busy.events] == ["reset", "message"]
    assert [event.type for event in both.events].count("reset") == 1


def test_a_client_that_comes_while_the_log_is_read_for_all_others_misses_nothing_of_its_own(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    """What is read for the others is read without its channels."""
    monkeypatch.setattr(channel_source, "_EVENTS", 10)
    first = [join(memory, "news") for _ in range(2)]
    turn()
    with reactor_held_up():
        for number in range(30):
            memory.publish("news", str(number))
        client = join(memory, "user:1")
        memory.publish("user:1", "own")
        memory.publish("news", "30")
    await_events(31, *first)
    await_events(1, client)
    memory.publish("user:1", "after")
    await_events(2, client)
    assert client.data == ["own", "after"]
    assert first[0].data == [str(number) for number in range(31)]


def test_a_client_that_comes_when_the_log_was_read_for_all_others_and_is_not_sent_yet_misses_nothing(
    memory: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(channel_source, "_EVENTS", 10)
    monkeypatch.setattr(channel_source, "_TURN", 0.0)
    first = [join(memory, "news") for _ in range(2)]
    turn()
    send_batch, sending, go_on = ChannelSource._send_batch, threading.Event(), threading.Event()

    def wait(self: ChannelSource) -> None:
        sending.set()
        assert go_on.wait(TIMEOUT)
        send_batch(self)

    class Late(Client):
        def began(self, connection: Connection) -> None:
            # The dispatcher knows it, and the reactor does not yet.
            memory.publish("user:1", "own")
            for number in range(15, 30):
                memory.publish("news", f"{number} ".ljust(4_000, "x"))
            held.close()
            assert sending.wait(TIMEOUT)

    monkeypatch.setattr(ChannelSource, "_send_batch", wait)
    with contextlib.ExitStack() as held:
        held.enter_context(reactor_held_up())
        for number in range(15):
            memory.publish("news", f"{number} ".ljust(4_000, "x"))
        late = Late(memory, "user:1")
    go_on.set()
    await_events(30, *first)
    memory.publish("user:1", "after")
    await_events(2, late)
    assert late.data == ["own", "after"]
    late.close()
    await_that(lambda: late.reason, "it ended")


def test_a_log_that_is_begun_anew_resets_clients_of_different_channels_once(memory: Broker, join: Join):
    clients = [join(memory, "a"), join(memory, "b"), join(memory, "a", "c"), join(memory, patterns=["*"])]
    slow = join(memory, "a", "d")
    turn()
    memory.publish("a", "x" * 300_000)
    await_events(1, clients[0], clients[2], clients[3])
    for number in range(20):
        memory.publish("a", f"{number} ".ljust(500, "x"))
    turn()
    begin_anew(memory, 3, "a", "b", "c", "a")
    for client, last in zip((*clients, slow), ("new-7", "new-5", "new-7", "new-7", "new-7"), strict=True):
        await_that(lambda client=client, last=last: client.last_event_id == last, last, client)  # type: ignore[misc]
        assert [event.type for event in client.events].count("reset") == 1


def test_clients_with_other_keep_alives_are_a_group_of_their_own(memory: Broker, join: Join):
    comments, pings = (join(memory, "news", keep_alive=1_000, keep_alive_event=event) for event in (None, "ping"))
    turn()
    for client, sent in ((comments, KEEP_ALIVE), (pings, b"event: ping\ndata: \n\n")):
        group = client.connection.group
        connections().call_soon(lambda group=group: group.tick(time.monotonic() + 1_001))
        turn()
        client.read()
        assert client.bytes == b"head" + sent
        stats = client.connection.stats
        assert (stats.keep_alives, stats.events) == (1, 0)


def test_a_keep_alive_goes_only_to_clients_that_were_sent_nothing_for_so_long(memory: Broker, join: Join):
    clients = [join(memory, "news", f"user:{number}", keep_alive=1_000) for number in range(3)]
    ahead = join(memory, "news", keep_alive=1_000)
    turn()
    group = clients[0].connection.group
    start = time.monotonic()

    def at(seconds: float) -> list[int]:
        """How many keep-alives each has, after a tick at that time."""
        connections().call_soon(lambda: group.tick(start + seconds))
        turn()
        for client in (*clients, ahead):
            client.read()
        return [client.bytes.count(KEEP_ALIVE) for client in (*clients, ahead)]

    def written(client: Client, seconds: float) -> None:
        client.connection.sent.last = start + seconds

    assert at(900) == [0, 0, 0, 0]
    written(clients[1], 500)
    written(ahead, 500)
    assert at(1_001) == [1, 0, 1, 0]
    written(clients[0], 1_001)
    written(clients[2], 1_001)
    assert at(1_499) == [1, 0, 1, 0]
    assert at(1_501) == [1, 1, 1, 1]
    written(clients[1], 1_501)
    written(ahead, 1_501)
    assert at(2_000) == [1, 1, 1, 1]
    group.last_write = start + 1_900  # all were given something
    assert at(2_899) == [1, 1, 1, 1]
    assert at(2_901) == [2, 2, 2, 2]
    assert [client.connection.stats.keep_alives for client in clients] == [2, 2, 2]
