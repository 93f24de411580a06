"""Clients that must not notice a deploy: each counts what arrives on its one connection, to the byte."""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time

from tests.live.channels.processes import TIMEOUT, await_that
from tests.live.channels.publisher import END

_EVENT = re.compile(rb"id: (\S+)\ndata: ([^\n]*)\n\n")


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket, channel: str) -> None:
        self.socket = sock
        self.channel = channel
        self.received = bytearray()
        #: Whether the server has ended the connection.
        self.ended = False

    @property
    def is_open(self) -> bool:
        """Whether the server has begun a stream."""
        return b":ok\n" in self.received

    @property
    def body(self) -> bytes:
        """What the server has sent after the head, without the chunks' sizes."""
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        assert re.match(rb"HTTP/1\.[01] 200 ", head), head
        if b"chunked" not in head.lower():
            return rest
        pieces = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break  # on its way
            assert rest[length : length + 2] == b"\r\n", rest[length : length + 20]
            pieces.append(rest[:length])
            rest = rest[length + 2 :]
        return b"".join(pieces)

    @property
    def events(self) -> list[tuple[str, str]]:
        """IDs and data, in order. All that is no event must be a comment, an ID or a reconnection time."""
        body = self.body
        rest = _EVENT.sub(b"", body)
        assert not re.sub(rb":[^\n]*\n+|retry: \d+\n+|id: \S+\n\n", b"", rest), rest
        return [(event_id.decode(), data.decode()) for event_id, data in _EVENT.findall(body)]


class Crowd:
    """Clients of one server, which one thread reads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._stopped = False
        self.clients: list[Client] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def join(self, count: int, channels: list[str], *, version: str = "1.1", query: str = "") -> list[Client]:
        """Connect clients, of each channel in turn, and wait until their streams are open."""
        new = [self.connect(channels[number % len(channels)], version, query) for number in range(count)]
        await_that(lambda: all(client.is_open for client in new), "all streams are open")
        return new

    def connect(self, channel: str, version: str = "1.1", query: str = "") -> Client:
        """Connect a client, and wait for nothing."""
        sock = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        target = f"/events?channel={channel}{query}"
        sock.sendall(f"GET {target} HTTP/{version}\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        sock.setblocking(False)
        client = Client(sock, channel)
        self.clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, client)
        return client

    def _read(self) -> None:
        while not self._stopped:
            if not self._selector.get_map():
                time.sleep(0.01)
                continue
            for key, _ in self._selector.select(0.05):
                client: Client = key.data
                try:
                    data = client.socket.recv(65536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                client.received += data
                if not data:
                    # Closed at once, as clients do: gunicorn waits for that, and serves nothing else meanwhile.
                    self._selector.unregister(client.socket)
                    client.socket.close()
                    client.ended = True

    def check(self, published: list[tuple[str, str]]) -> None:
        """Fail unless each client gets just what was published to its channel, on the connection that it has made."""
        self.wait_for_the_end()
        for client in self.clients:
            assert client.events == wanted(client, published)

    def wait_for_the_end(self, clients: list[Client] | None = None) -> None:
        """Wait until each client has the last event of its channel. Fail if a connection has ended."""
        clients = self.clients if clients is None else clients
        last = {channel: f" {END}\n\n".encode() for channel in {client.channel for client in clients}}
        await_that(
            lambda: all(last[each.channel] in each.received or each.ended for each in clients),
            "each client has the last event",
        )
        ended = [client for client in clients if client.ended]
        assert not ended, f"{len(ended)} of {len(clients)} connections were ended"

    def stop(self) -> None:
        self._stopped = True
        self._thread.join(TIMEOUT)
        for client in self.clients:
            client.socket.close()


def wanted(client: Client, published: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The events of a client's channel."""
    return [(event_id, data) for event_id, data in published if data.startswith(f"{client.channel} ")]
