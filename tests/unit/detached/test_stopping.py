"""A process that stops while a client is handed over: the client gets a reconnection time, as all others do."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

import ssesync
from ssesync import CloseReason, Settings, StreamStats, Subscription
from ssesync.detached.connection import Connection, Handover

TIMEOUT = 90.0
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
END = re.compile(rb"[0-9a-f]+\r\nretry: [0-9]+\n\r\n0\r\n\r\n")


class Record:
    """Keeps account of nothing, and does something when the stream begins."""

    def __init__(self, begun: Callable[[], object] = lambda: None) -> None:
        self._begun = begun

    def began(self, connection: Connection) -> None:
        self._begun()

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> None:
        pass


@pytest.fixture
def broker() -> Iterator[ssesync.Broker]:
    with ssesync.open_broker("memory://") as broker:
        yield broker


def hand_over(subscription: Subscription, record: Record) -> socket.socket:
    client, ours = socket.socketpair()
    client.settimeout(TIMEOUT)
    ours.setblocking(False)
    subscription._source.detach(Handover(ours.detach(), True, HEAD, "test", Settings(), time.monotonic(), 0), record)
    return client


def read(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def test_a_stop_in_the_middle_of_the_hand_over_is_a_stop(broker: ssesync.Broker):
    subscription = broker.subscribe("news")
    with hand_over(subscription, Record(lambda: subscription.stop(CloseReason.SHUTDOWN))) as client:
        data = read(client)
    assert data.startswith(HEAD)
    assert END.fullmatch(data[len(HEAD) :])


def test_a_revocation_in_the_middle_of_the_hand_over_is_one(broker: ssesync.Broker):
    subscription = broker.subscribe("news", key="one")
    with hand_over(subscription, Record(lambda: subscription._subscriber.close(CloseReason.REVOKED))) as client:
        assert read(client) == HEAD + b"0\r\n\r\n"


def test_a_stop_after_the_hand_over_cuts_no_client_off(broker: ssesync.Broker):
    subscription = broker.subscribe("news")
    with hand_over(subscription, Record()) as client:
        assert client.recv(len(HEAD), socket.MSG_WAITALL) == HEAD
        text = "x" * 3_000_000
        event_id = broker.publish("news", text)
        assert client.recv(1) == b"2"  # it waits for the client now
        subscription.stop(CloseReason.SHUTDOWN)
        data = read(client)
    size, _, rest = (b"2" + data).partition(b"\r\n")
    event = f"id: {event_id}\ndata: {text}\n\n".encode()
    assert int(size, 16) == len(event)
    assert rest.startswith(event + b"\r\n")
    assert END.fullmatch(rest[len(event) + 2 :])
