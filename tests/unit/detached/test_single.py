"""Clients that get what no other does: what they are given, when they are not, and each end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ssesync import CloseReason, Settings
from ssesync.detached.connection import Connection, Handover
from ssesync.detached.connections import Connections
from ssesync.errors import ReadError
from ssesync.server.resumption import Resumption
from ssesync.wire.chunked import LAST_CHUNK, to_chunk
from ssesync.wire.encoder import KEEP_ALIVE

from .test_connections import HEAD, PATIENCE, Note, running, tcp_pair


class Given:
    """A filler that gives what the test says, on the reactor's thread."""

    resumable = False
    pending = (0, 0)

    def __init__(self) -> None:
        self.begun, self.drains, self.gone = threading.Event(), threading.Semaphore(0), threading.Event()
        self.rest = b""

    def begin(self) -> None:
        self.begun.set()

    def drained(self) -> None:
        self.drains.release()

    def take_rest(self) -> tuple[bytes, int]:
        return self.rest, int(bool(self.rest))

    def left(self) -> None:
        self.gone.set()

    def tick(self, now: float) -> None:
        pass


class Client:
    def __init__(
        self, connections: Connections, *, chunked: bool = True, resumption: Resumption | None = None, **options: object
    ) -> None:
        self.socket, other = tcp_pair()
        self.socket.settimeout(PATIENCE)
        other.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.connections, self.filler, self.note = connections, Given(), Note()
        handover = Handover(
            other.detach(), chunked, HEAD, "test", Settings().replace(**options), time.monotonic(), 0,
            resumption or Resumption(is_get=False),
        )  # fmt: skip
        self.connection = Connection(connections, handover, connections.singles, self.note, self.filler)
        connections.call_soon(lambda: connections.singles.serve(connections, self.connection, HEAD))
        assert self.filler.begun.wait(PATIENCE)

    def call(self, call: Callable[[], object]) -> None:
        """Call on the reactor's thread, and wait for it."""
        done = threading.Event()
        self.connections.call_soon(lambda: (call(), done.set()))
        assert done.wait(PATIENCE)

    def give(self, data: bytes) -> None:
        self.call(lambda: self.connections.singles.give(self.connection, data, 1))

    def rest(self) -> tuple[bytes, bool]:
        """All that comes behind the head, and whether a reset ends it."""
        data, reset = b"", False
        with contextlib.suppress(ConnectionResetError):
            reset = True
            while piece := self.socket.recv(65536):
                data += piece
            reset = False
        self.socket.close()
        return data.removeprefix(HEAD), reset


@pytest.fixture
def connections() -> Iterator[Connections]:
    with running() as connections:
        yield connections


def test_each_client_gets_its_own(connections: Connections) -> None:
    clients = [Client(connections) for _ in range(3)]
    for number, client in enumerate(clients):
        client.give(b"data: %d\n\n" % number)
        client.call(lambda client=client: client.connection.finish(CloseReason.DONE))
    for number, client in enumerate(clients):
        assert client.rest() == (to_chunk(b"data: %d\n\n" % number) + LAST_CHUNK, False)
        assert client.note.reason == "done"
        assert client.note.stats is not None
        assert (client.note.stats.events, client.note.stats.bytes) == (1, 9)
        assert client.filler.gone.wait(PATIENCE)
    assert len(connections.singles) == 0


def test_an_answer_that_ends_with_its_connection_ends_with_a_fin_by_its_own_end_alone(connections: Connections) -> None:
    client = Client(connections, chunked=False)
    client.give(b"data: x\n\n")
    client.call(lambda: client.connection.finish(CloseReason.DONE))
    assert client.rest() == (b"data: x\n\n", False)
    client = Client(connections, chunked=False)
    client.connection.stop("shutdown")
    data, reset = client.rest()
    assert data.startswith(b"event: error\n")
    assert reset


@pytest.mark.parametrize(
    ("resumption", "has_ids", "complete"),
    [
        (Resumption(), True, True),
        (Resumption(), False, False),
        (Resumption(is_event_source=True), False, False),
        (Resumption(is_get=False), True, False),
        (Resumption(True), False, True),
        (Resumption(False), True, False),
    ],
)
def test_a_failure_is_told_and_ends_the_answer_by_what_the_client_can_resume(
    connections: Connections, resumption: Resumption, has_ids: bool, complete: bool
) -> None:
    told: list[object] = []
    client = Client(connections, resumption=resumption, error_event=lambda error: told.append(error))
    client.filler.resumable = has_ids
    failure = ReadError("broke")
    client.call(lambda: client.connection.finish(CloseReason.ERROR, error=failure))
    data, reset = client.rest()
    assert b"event: error\n" in data
    assert (data.endswith(LAST_CHUNK), reset) == (complete, False)
    assert told == [failure]
    assert client.note.reason == "error"


def test_what_is_there_comes_before_the_end(connections: Connections) -> None:
    client = Client(connections, resumption=Resumption(True))
    client.filler.rest = b"data: rest\n\n"
    client.connection.stop("shutdown", b"data: last\n\n")
    data, _ = client.rest()
    assert data.startswith(to_chunk(b"data: rest\n\n"))
    assert b"data: last\n\nretry: " in data


def test_a_client_that_does_not_read_is_waited_for_and_then_cut_off(connections: Connections) -> None:
    client = Client(connections)
    large = b"data: " + b"x" * 4_000_000 + b"\n\n"
    client.give(large)
    assert client.connection.waits
    assert client.connection.describe()["pending_bytes"] > 0
    data = b""
    while len(data) < len(large) + len(HEAD) + 10:
        data += client.socket.recv(65536)
    assert client.filler.drains.acquire(timeout=PATIENCE)
    assert not client.connection.waits
    client.socket.close()
    assert client.note.reason == "client_gone"
    stalled = Client(connections, send_timeout=0.2)
    stalled.give(large)
    assert stalled.note.reason == "stalled"
    assert stalled.filler.gone.wait(PATIENCE)
    stalled.socket.close()


def test_a_silent_client_gets_keep_alives(connections: Connections) -> None:
    client = Client(connections, keep_alive=0.1)
    data = b""
    while data.count(KEEP_ALIVE) < 2:
        data += client.socket.recv(65536)
    client.connection.cancel()
    client.rest()
    assert client.note.stats is None or client.note.stats.keep_alives >= 2
