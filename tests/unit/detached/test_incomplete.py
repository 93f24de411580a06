"""Detached clients that can't resume: their answers end as incomplete ones, and with all that was sent."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ssesync import Event, StreamClosed
from ssesync.detached.connections import Connections
from ssesync.wire.chunked import to_chunk

from .test_connections import Client, Plain, clients_are_closed, running

__all__ = ["clients_are_closed"]


@pytest.fixture
def connections() -> Iterator[Connections]:
    with running() as connections:
        yield connections


def words_of(body: bytes, *, chunked: bool) -> bytes:
    """An error event without its framing, if there is nothing else, and no last chunk."""
    if not chunked:
        return body
    size, _, data = body.partition(b"\r\n")
    assert len(data) == int(size, 16) + 2, body
    return data[:-2]


def all_of(client: Client) -> tuple[bytes, bool]:
    """All that comes, and whether a reset ends it."""
    data = b""
    try:
        while piece := client.socket.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, True
    return data, False


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "close-delimited"])
@pytest.mark.parametrize(("how", "reason"), [("stop", "shutdown"), ("stop", "lifetime"), ("cancel", "revoked")])
def test_an_answer_gets_an_error_event_and_no_end(
    connections: Connections, chunked: bool, how: str, reason: str
) -> None:
    client = Client(Plain(connections), chunked=chunked, tcp=True, orderly=False)
    getattr(client.connection, how)(reason)
    data, reset = all_of(client)
    assert reset is not chunked
    kind, line = words_of(data, chunked=chunked).removesuffix(b"\n\n").split(b"\n")
    assert kind == b"event: error"
    assert json.loads(line.removeprefix(b"data: "))["error"]["type"] == "server_error"
    assert client.note.reason == reason


def test_the_last_event_comes_before_the_error_event(connections: Connections) -> None:
    client = Client(Plain(connections), orderly=False, error_event=Event("over"))
    client.connection.stop("shutdown", b"data: bye\n\n")
    assert all_of(client) == (to_chunk(b"data: bye\n\ndata: over\n\n"), False)


def test_a_function_makes_the_error_event_on_a_thread_that_may_wait(connections: Connections) -> None:
    seen = []

    def make(error: BaseException) -> Event:
        assert isinstance(error, StreamClosed)
        seen.append((error.reason, threading.current_thread().name))
        return Event("made")

    client = Client(Plain(connections), orderly=False, error_event=make)
    client.connection.stop("lifetime")
    assert all_of(client)[0] == to_chunk(b"data: made\n\n")
    assert client.note.reason == "lifetime"
    [(reason, thread)] = seen
    assert reason == "lifetime"
    assert thread.startswith("ssesync-caller")


def test_what_ends_at_once_does_not_wait_for_a_function(connections: Connections) -> None:
    client = Client(Plain(connections), orderly=False, error_event=lambda error: Event("made"))
    client.connection.cancel("revoked")
    assert b"server_error" in all_of(client)[0]


def test_within_an_event_the_connection_is_reset(connections: Connections) -> None:
    client = Client(Plain(connections), tcp=True, orderly=False)
    connections.call_soon(lambda: client.connection.give(b"data: " + b"x" * 8_000_000 + b"\n\n"))
    client.read(65536)
    client.connection.cancel()
    assert all_of(client)[1]


def test_a_client_that_can_not_resume_and_leaves_is_gone(connections: Connections) -> None:
    client = Client(Plain(connections), chunked=False, tcp=True, orderly=False)
    client.socket.close()
    assert client.note.reason == "client_gone"


@pytest.mark.slow
def test_nothing_that_was_sent_is_lost_by_the_reset(connections: Connections) -> None:
    """A reset discards what the client's system has not acknowledged: here since its buffer is full."""
    client = Client(Plain(connections), chunked=False, tcp=True, orderly=False, error_event=Event("over"))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    block = b"data: " + b"x" * 500 + b"\n\n"
    sent = []

    def fill() -> None:
        # As much as the kernel takes, so that nothing waits in the process.
        while not client.connection.waits and len(sent) < 5000:
            sent.append(block)
            client.connection.give(block)

    connections.call_soon(fill)
    while not client.connection.waits:
        time.sleep(0.01)
    client.connection.stop("shutdown")
    time.sleep(0.2)
    data, reset = all_of(client)
    assert data == b"".join(sent) + b"data: over\n\n"
    assert reset


def test_a_process_that_exits_waits_for_what_is_not_acknowledged() -> None:
    with running() as connections:
        clients = [Client(Plain(connections), chunked=False, tcp=True, orderly=False) for _ in range(3)]
        connections.drain()
        assert not connections._resets
        assert all(all_of(client)[1] for client in clients)
