"""The states of a detached connection: what is not in the table raises, and the sets of a group follow from them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from ssesync import CloseReason, Settings
from ssesync.detached.broadcast import BroadcastGroup
from ssesync.detached.connection import Connection
from ssesync.detached.connections import Connections
from ssesync.detached.source import Numbered, Position
from ssesync.detached.state import OVER, RUNNING, TRANSITIONS, State
from ssesync.reactor import Reactor
from ssesync.server.detaching import Handover
from ssesync.wire.encoder import KEEP_ALIVE

from ...cases import each_case
from .test_connections import HEAD, Note

FIRST = Position("log", 5)


def message(seq: int, size: int = 10) -> Numbered:
    made = Numbered(b"%d " % seq + b"x" * size)
    made.seq = seq
    return made


class Queue:
    """A subscriber without a log: it keeps all that it is offered."""

    def __init__(self, position: Position) -> None:
        self.position: Position | None = position  # None: it misses something
        self.items: list[bytes] = []
        self.is_closed = False
        self.refuses: CloseReason | None = None

    @property
    def pending(self) -> tuple[int, int]:
        return len(self.items), sum(map(len, self.items))

    def offer(self, messages: Sequence[Numbered]) -> CloseReason | None:
        self.items += messages
        self.position = Position("log", messages[-1].seq)
        return self.refuses

    def missed(self) -> None:
        self.position = None

    def restarted(self, epoch: str, position: int) -> None:
        self.items.clear()

    def progressed(self) -> None:
        pass

    def poll(self) -> list[bytes] | Position | CloseReason:
        items, self.items = self.items, []
        return items if items or self.position is None else self.position

    def read(self, size: int) -> None:
        return None

    def freeze(self) -> tuple[Position, list[bytes]]:
        return self.position or FIRST, [b"note"]

    def close(self, reason: CloseReason) -> None:
        self.is_closed = True


class Source:
    def __init__(self) -> None:
        self.made: list[Queue] = []

    def subscriber_for(self, connection: Connection, position: Position, *, from_log: bool) -> Queue:
        self.made.append(Queue(position))
        return self.made[-1]

    def caught_up(self, connection: Connection, subscriber: object) -> None:
        pass

    def left(self, connection: Connection) -> None:
        pass

    def tick(self) -> None:
        pass


class Stage:
    """A group whose calls are made by the test itself, in the reactor's place."""

    def __init__(self, keep_alive: float | None = None) -> None:
        self.reactor = Reactor()
        self.connections = Connections(self.reactor)
        self.source = Source()
        self.group = BroadcastGroup(self.connections, keep_alive, self.source)
        self.group.position = FIRST
        self.clients: list[socket.socket] = []

    def join(self, position: Position = FIRST) -> tuple[Connection, socket.socket]:
        connection, client = self.arrive()
        self.connections.register(connection, HEAD)
        self.group.place(connection, position)
        assert client.recv(len(HEAD)) == HEAD
        return connection, client

    def arrive(self) -> tuple[Connection, socket.socket]:
        client, ours = socket.socketpair()
        self.clients.append(client)
        client.setblocking(False)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        handover = Handover(ours.detach(), False, HEAD, "test", Settings(), time.monotonic(), 0)
        return Connection(self.connections, handover, self.group, Note(), None), client

    def send(self, *messages: Numbered) -> None:
        self.group.send([(messages, [each.fd for each in self.group.members()])], messages[-1].seq)

    def close(self) -> None:
        self.connections.abort_all()
        self.reactor.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with closing(Stage()) as made:
        yield made


def read_all(client: socket.socket) -> bytes:
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_the_table_has_all_states_and_an_end_for_each() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for after in TRANSITIONS.values() for state in after} == set(State) - {State.ARRIVING}
    for state in set(State) - {State.CLOSED}:
        assert State.CLOSED in TRANSITIONS[state]
    for state in RUNNING:
        assert TRANSITIONS[state] >= OVER
    assert not TRANSITIONS[State.CLOSED]


@each_case("before", State, ids=lambda state: state.value)
@each_case("after", State, ids=lambda state: state.value)
def test_a_change_that_is_not_in_the_table_raises_and_changes_nothing(before: State, after: State) -> None:
    with closing(Stage()) as stage:
        connection, _ = stage.arrive()
        if before is not State.ARRIVING:
            stage.connections.register(connection, HEAD)
        held = {State.AHEAD: Position("log", 9), State.LAGGING: Queue(FIRST)}
        if before is State.FROZEN:
            stage.group.place(connection, FIRST)
        if connection.state is not before:
            stage.group.move(connection, before, held.get(before))
        sizes = len(stage.group), len(list(stage.group.members()))
        if after in TRANSITIONS[before]:
            stage.group.move(connection, after, held.get(after))
            assert connection.state is after
            assert len(stage.group) == (after is not State.CLOSED)
            assert len(list(stage.group.members())) == (after in RUNNING)
        else:
            with pytest.raises(RuntimeError, match=f"from '{before.value}' to '{after.value}'"):
                stage.group.move(connection, after)
            assert connection.state is before
            assert (len(stage.group), len(list(stage.group.members()))) == sizes


def test_a_client_that_does_not_take_all_is_draining_then_lagging_then_in_sync(stage: Stage) -> None:
    slow, client = stage.join()
    other, others_client = stage.join()
    large = message(6, 100_000)
    stage.send(large)
    assert slow.state is other.state is State.DRAINING
    got = b""
    while other.state is State.DRAINING:
        got += read_all(others_client)
        other.on_writable()
    assert other.state is State.IN_SYNC
    assert not stage.source.made
    small = [message(7), message(8)]
    stage.send(*small)
    assert (slow.state, other.state) == (State.LAGGING, State.IN_SYNC)
    assert got + read_all(others_client) == b"".join([large, *small])
    (queue,) = stage.source.made
    assert stage.group.pending_of(slow)[0] == 2
    got = b""
    while slow.state is State.LAGGING:
        got += read_all(client)
        slow.on_writable()
    assert slow.state is State.IN_SYNC
    assert queue.is_closed
    stage.send(message(9))
    assert got + read_all(client) == b"".join([large, *small, message(9)])
    assert slow.stats.events == other.stats.events == 4


def test_a_frozen_client_is_sent_nothing_until_it_is_thawed(stage: Stage) -> None:
    connection, client = stage.join()
    assert stage.group.freeze(connection) == (FIRST, False)
    values = connection.freeze()
    assert (connection.state, values.fd, values.unsent) == (State.FROZEN, connection.fd, b"")
    assert stage.group.freeze(connection) is None
    connection.abort(CloseReason.REVOKED)
    connection.finish(CloseReason.LIFETIME)
    stage.send(message(6))
    stage.group.tick(time.monotonic() + 100)
    assert read_all(client) == b""
    assert connection.thaw(None)
    stage.group.place(connection, FIRST)
    connection.carry_out_deferred()
    assert connection.reason is CloseReason.REVOKED


def test_a_released_client_is_not_ended(stage: Stage) -> None:
    lagging, client = stage.join()
    stage.send(message(6, 100_000))
    stage.send(message(7))
    assert lagging.state is State.LAGGING
    got = read_all(client)
    assert stage.group.freeze(lagging) == (Position("log", 7), True)
    values = lagging.freeze()
    assert got + values.unsent == message(6, 100_000) + b"note"
    with socket.socket(fileno=os.dup(values.fd)) as other_process:
        lagging.release()
        assert lagging.closed
        assert len(stage.connections) == len(stage.group) == 0
        other_process.send(b"more")
        assert read_all(client) == b"more"


def test_a_client_that_is_ahead_gets_what_comes_after_its_position(stage: Stage) -> None:
    ahead, client = stage.join(Position("log", 7))
    assert ahead.state is State.AHEAD
    stage.send(message(6))
    assert ahead.state is State.AHEAD
    stage.send(message(7), message(8))
    assert ahead.state is State.IN_SYNC
    stage.send(message(9))
    assert read_all(client) == message(8) + message(9)


def test_a_client_of_another_log_gets_all_of_the_new_one(stage: Stage) -> None:
    other, client = stage.join(Position("new", 1))
    stale, _ = stage.join(Position("old", 900))
    assert other.state is stale.state is State.AHEAD
    stage.group.restart(Position("new", 1))
    stage.group.send([([message(1), message(2)], [other.fd, stale.fd])], 2)
    assert other.state is stale.state is State.IN_SYNC
    assert read_all(client) == message(2)
    assert stale.stats.events == 2


def test_a_subscriber_that_refuses_ends_its_client_for_that_reason(stage: Stage) -> None:
    slow, _ = stage.join()
    stage.send(message(6, 100_000))
    stage.send(message(7))
    stage.source.made[0].refuses = CloseReason.OVERFLOW
    stage.send(message(8))
    assert slow.closed
    assert slow.reason is CloseReason.OVERFLOW
    assert stage.source.made[0].is_closed
    assert not len(stage.group)


def test_a_client_that_is_ending_gets_what_waits_and_nothing_that_comes(stage: Stage) -> None:
    slow, client = stage.join()
    stage.send(message(6, 100_000))
    stage.send(message(7))
    slow.finish(CloseReason.LIFETIME, b"data: bye\n\n")
    assert slow.state is State.ENDING
    assert stage.source.made[0].is_closed
    stage.send(message(8))
    data = b""
    while not slow.closed:
        data += read_all(client)
        slow.on_writable()
    data += read_all(client)
    assert data.startswith(message(6, 100_000) + message(7) + b"data: bye\n\nretry: ")
    assert message(8) not in data
    assert slow.reason is CloseReason.LIFETIME


def test_a_keep_alive_goes_to_clients_that_are_ahead_too() -> None:
    with closing(Stage(keep_alive=10)) as stage:
        in_sync, one = stage.join()
        ahead, other = stage.join(Position("log", 7))
        stage.group.tick(time.monotonic() + 11)
        assert read_all(one) == read_all(other) == KEEP_ALIVE
        assert in_sync.stats.keep_alives == ahead.stats.keep_alives == 1
