"""The load client of benchmarks.fanout without a C compiler: ``python -m benchmarks.fanout_client PORT CLIENTS``.

It has the commands and answers of fanout_client.c, whose head describes them, and takes several times as long for
each receipt. So with many clients the figures depend more on it than on the servers.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from typing import Any

from .fanout_apps import SIZE

_HEAD = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
_CONNECT = 120
_SECOND = 10**9
_QUIET = 10 * _SECOND
_FIELDS = (b":", b"id:", b"event:", b"retry:")


class Wrong(Exception):
    """The server's answer is none that can be counted."""


class Client:
    """One stream."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT)
        self.socket.sendall(_HEAD)
        self._rest = self._read_head()
        self._line = b""
        self._data: bytes | None = None
        self.next = 0
        self.over = False
        self.socket.setblocking(False)

    def _read_head(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(4096)
            if not more or len(data) > 4096:
                raise Wrong("a stream ended before its head")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        first, _, fields = head.lower().partition(b"\r\n")
        lines = fields.split(b"\r\n")
        stream = any(line.startswith(b"content-type: text/event-stream") for line in lines)
        if not first.startswith(b"http/1.1 200 ") or not stream or b"transfer-encoding: chunked" not in lines:
            raise Wrong(f"no chunked event stream: {first.decode(errors='replace')}")
        return rest

    def feed(self, data: bytes, at: int, load: Load) -> None:
        """Take what has come: chunks, lines, events."""
        text = self._line + b"".join(self._chunks(self._rest + data))
        *lines, self._line = text.split(b"\n")
        for line in lines:
            self._take(line.removesuffix(b"\r"), at, load)

    def _chunks(self, data: bytes) -> list[bytes]:
        at, found = 0, []
        while (end := data.find(b"\r\n", at)) >= 0 and not self.over:
            try:
                size = int(data[at:end], 16)
            except ValueError:
                raise Wrong("no chunk begins there") from None
            self.over = size == 0
            if len(data) < end + 2 + size + 2:
                break
            if data[end + 2 + size : end + 4 + size] != b"\r\n":
                raise Wrong("a chunk does not end where it should")
            found.append(data[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        self._rest = data[at:]
        return found

    def _take(self, line: bytes, at: int, load: Load) -> None:
        if line.startswith(b"data:"):
            data = line[5:].removeprefix(b" ")
            if self._data is not None or len(data) != SIZE:
                load.corrupt += 1
            else:
                self._data = data
        elif not line:
            if self._data is not None:
                load.got(self, self._data, at)
            self._data = None
        elif not line.startswith(_FIELDS):
            load.corrupt += 1


class Load:
    """All of them, and what they have got."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        start = time.monotonic()
        self._clients = [Client(port) for _ in range(count)]
        self.seconds = time.monotonic() - start
        for each in self._clients:
            self._selector.register(each.socket, selectors.EVENT_READ, each)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        self.corrupt = self._stray = self._ended = 0
        self._clear(0, 0)

    def _clear(self, first: int, count: int) -> None:
        self._first, self._count = first, count
        self._received = self._disorder = self._bytes = self._first_at = self._last_at = self._sent = 0
        self._samples: dict[int, bytes] = {}
        for each in self._clients:
            each.next = first

    def got(self, client: Client, data: bytes, at: int) -> None:
        """Count an event."""
        words = data.split(b" ")
        if len(words) != 3 or not words[0].isdigit() or not words[1].isdigit() or words[2].strip(b"x"):
            self.corrupt += 1
            return
        number = int(words[0])
        if not self._first <= number < self._first + self._count:
            self._stray += 1
        elif number < client.next:
            self._disorder += 1
        elif self._samples.setdefault(number, data) != data:
            self.corrupt += 1
        else:
            if number == self._first and not self._sent:
                self._sent = int(words[1])
            client.next = number + 1
            self._received += 1
            self._first_at = self._first_at or at
            self._last_at = at

    def turn(self, timeout: float | None) -> str | None:
        """Read what has come; what standard input says, if it does."""
        line = None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                line = os.read(sys.stdin.fileno(), 200).decode()
            else:
                self._read(key.data)
        return line

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(client.socket)
            client.socket.close()
            self._ended += 1
            return
        self._bytes += len(data)
        client.feed(data, time.monotonic_ns(), self)

    def expect(self, first: int, count: int, seconds: float) -> dict[str, Any]:
        """What came of so many events."""
        self._clear(first, count)
        say({"armed": True})
        expected, cpu = count * len(self._clients), time.process_time()
        deadline = time.monotonic_ns() + seconds * _SECOND
        while not expected or self._received < expected:
            self.turn(0.05)
            at = time.monotonic_ns()
            quiet = self._received and at - self._last_at > _QUIET
            if at > deadline or quiet or self._ended == len(self._clients):
                break
        found = {
            "first": self._first_at,
            "last": self._last_at,
            "sent": self._sent,
            "received": self._received,
            "missing": expected - self._received,
            "disorder": self._disorder,
            "stray": self._stray,
            "corrupt": self.corrupt,
            "ended": self._ended,
            "bytes": self._bytes,
            "cpu": time.process_time() - cpu,
        }
        self.corrupt = self._stray = self._count = 0
        return found


def say(what: dict[str, Any]) -> None:
    """Say something."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """Carry out the commands of standard input."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    try:
        load = Load(port, count)
        say({"connected": count, "seconds": load.seconds})
        while (line := load.turn(None)) != "":
            if line is not None:
                _, first, events, seconds = line.split()
                say(load.expect(int(first), int(events), float(seconds)))
    except (Wrong, OSError) as error:
        say({"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
