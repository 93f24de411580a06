"""Detached clients of a broker's, over real sockets and the process's own reactor."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssesync import Broker, CloseReason, Event, Settings, StreamStats, Subscription
from ssesync.channels.brokers.memory.broker import MemoryBroker
from ssesync.channels.brokers.memory.log import MemoryLog
from ssesync.channels.entry import Entry
from ssesync.channels.options import Limits
from ssesync.detached.connection import Connection, Handover
from ssesync.detached.connections import connections
from ssesync.wire import Decoder

TIMEOUT = 90.0
HEAD = b"head"


class Client:
    """A client of a broker's, by a socket pair, which reads when the test says so."""

    def __init__(
        self, broker: Broker, *channels: str, last_event_id: str = "", buffer: int = 4096, **options: Any
    ) -> None:
        known = Settings.__dataclass_fields__.keys() - Broker.POLICY
        settings = Settings(**{name: options.pop(name) for name in known & options.keys()})
        first = options.pop("first", ())
        subscription = broker.subscribe(*channels, last_event_id=last_event_id, **options)
        subscription.send_first(first)
        self.socket, other = socket.socketpair()
        other.setblocking(False)
        self.socket.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.bytes = b""
        self.events: list[Event] = []
        self.reason: CloseReason | None = None
        self.stats: StreamStats | None = None
        self.is_at_end = False
        self._decoder = Decoder()
        self._head = len(HEAD)
        self.subscription: Subscription = subscription
        try:
            self.connection = subscription._source.detach(
                Handover(other.fileno(), False, HEAD, "test", settings, time.monotonic(), 0), self
            )
        except BaseException:
            other.close()
            self.socket.close()
            raise
        other.detach()

    @property
    def key(self) -> str:
        return "a key"

    @property
    def is_bound(self) -> bool:
        return False

    @property
    def is_movable(self) -> bool:
        return True

    def began(self, connection: Connection) -> None:
        pass

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> None:
        self.stats = stats
        self.reason = reason

    def read(self, most: int = 65536) -> bool:
        """Read what has come, or a part of that; whether there was something."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.is_at_end = True
            return False
        self.is_at_end = self.is_at_end or not data
        self.bytes += data
        skipped, self._head = data[: self._head], max(0, self._head - len(data))
        self.events += self._decoder.feed(data[len(skipped) :])
        return bool(data)

    @property
    def data(self) -> list[str | None]:
        return [event.data for event in self.events]

    @property
    def last_event_id(self) -> str:
        return next((event.id for event in reversed(self.events) if event.id), "")

    def close(self) -> None:
        self.socket.close()


def await_that(condition: Callable[[], object], what: str, *reading: Client) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"this did not happen: {what}"
        with selectors.DefaultSelector() as selector:
            for client in reading:
                if not client.is_at_end:
                    selector.register(client.socket, selectors.EVENT_READ, client)
            if selector.get_map():
                for key, _ in selector.select(0.01):
                    key.data.read()
            else:
                time.sleep(0.005)


def await_events(count: int, *clients: Client) -> None:
    await_that(lambda: all(len(each.events) >= count for each in clients), f"{count} events came", *clients)


def turn() -> None:
    """Wait until the reactor has done all that it was asked for before."""
    done = threading.Event()
    connections().call_soon(done.set)
    assert done.wait(TIMEOUT)


@contextlib.contextmanager
def reactor_held_up() -> Iterator[None]:
    """Keep the reactor's thread from doing anything."""
    held, go = threading.Event(), threading.Event()
    connections().call_soon(lambda: (held.set(), go.wait(TIMEOUT)))
    assert held.wait(TIMEOUT)
    try:
        yield
    finally:
        go.set()


Join = Callable[..., Client]


def set_limits(broker: Broker, **limits: Any) -> None:
    """Change how much the log of a memory broker keeps."""
    assert isinstance(broker, MemoryBroker)
    broker._log._limits = Limits(**limits)


def begin_anew(broker: Broker, seq: int, *channels: str, closed: str = "") -> None:
    """Begin a new log in a memory broker, as a server does that has lost its own: it has so many events, the last of
    which has closed a channel if one is named. Then one is published to each of the channels."""
    assert isinstance(broker, MemoryBroker)
    log = MemoryLog("new", Limits())
    log.seq = seq - bool(closed)
    if closed:
        log.append_accepted(Entry(closed, b"data: last\n\n", final=True))
    broker._log = log
    broker.dispatcher.restarted("new", seq)
    for channel in channels:
        broker.dispatcher.deliver([message := log.append(channel, b"data: new\n\n")], message.seq)
