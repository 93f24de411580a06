"""Many subscribers over HTTP: one process, one loop, any number of connections, with as little work as possible.

``python -m benchmarks.crowd PORT SUBSCRIBERS`` connects them all to ``/events`` and then reads commands, line by
line:

``warm``
    Answers ``ok`` when every subscriber has got an event with a number below 0: all are connected.
``expect COUNT SECONDS``
    Answers ``ok``, and later with one line of JSON: when all have got the events 0 to COUNT - 1, when the time is over,
    or when nothing has come for a while. It has the latency (the 50th, 95th and 99th percentile, in ms), the time of
    the last event, and the numbers of missing, misordered and duplicate events.

A subscriber decodes the transfer coding and finds the data lines. The time of an event is that of the clock after
``recv``, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import sys
import time
from array import array
from typing import Any

_DATA = re.compile(rb"^data: ?(-?\d+) (\d+) x*\r?$", re.MULTILINE)
_CONNECT = 60
# Nanoseconds without an event, after which no more will come.
_QUIET = 10 * 10**9


class Subscriber:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT)
        self.socket.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        self.socket.setblocking(False)
        self.warm = False
        self.next = 0
        self._in_head = True
        self._rest = b""  # of the transfer coding
        self._text = b""  # of the stream

    def read(self, crowd: Crowd) -> None:
        """Take what has come."""
        try:
            data = self.socket.recv(262144)
        except BlockingIOError:
            return
        now = time.monotonic_ns()
        if not data:
            raise ConnectionError("the server has ended a stream")
        self._rest += data
        if self._in_head:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 200 " not in head.partition(b"\r\n")[0] or b"chunked" not in head.lower():
                raise ConnectionError(f"no stream: {head[:200]!r} {rest[:200]!r}")
            self._in_head, self._rest = False, rest
        self._text += self._chunks()
        cut = self._text.rfind(b"\n") + 1
        if not cut:
            return
        lines, self._text = self._text[:cut], self._text[cut:]
        for number, sent in _DATA.findall(lines):
            self._got(int(number), int(sent), now, crowd)

    def _chunks(self) -> bytes:
        rest, at, found = self._rest, 0, []
        while (end := rest.find(b"\r\n", at)) >= 0:
            size = int(rest[at:end], 16)
            if len(rest) < end + 2 + size + 2:
                break
            found.append(rest[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        self._rest = rest[at:]
        return b"".join(found)

    def _got(self, number: int, sent: int, now: int, crowd: Crowd) -> None:
        if number < 0:
            self.warm = True
        elif number < self.next:
            crowd.disorder += 1
        else:
            # What is left out may be missing for good: it counts as received only when it comes, which is disorder.
            self.next = number + 1
            crowd.received += 1
            crowd.last = now
            crowd.late.append((now - sent) / 1e6)


class Crowd:
    """All of them, and what they have got."""

    def __init__(self, port: int, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.subscribers = [Subscriber(port) for _ in range(count)]
        for each in self.subscribers:
            self.selector.register(each.socket, selectors.EVENT_READ, each)
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        self._clear()

    def _clear(self) -> None:
        self.late = array("d")
        self.received = self.disorder = self.last = 0
        for each in self.subscribers:
            each.next = 0

    def turn(self, timeout: float | None = None) -> str:
        """Read what has come; what standard input says, if it does."""
        line = ""
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                line = os.read(sys.stdin.fileno(), 1000).decode() or "end"
            else:
                key.data.read(self)
        return line

    def warm(self) -> None:
        """Until every subscriber has got an event."""
        while not all(each.warm for each in self.subscribers):
            if self.turn(1) == "end":
                sys.exit()

    def expect(self, count: int, seconds: float) -> dict[str, Any]:
        """What came of so many events."""
        self._clear()
        answer("ok")
        expected = count * len(self.subscribers)
        deadline = time.monotonic() + seconds
        self.last = begun = time.monotonic_ns()
        while self.received < expected and time.monotonic() < deadline:
            self.turn(0.5)
            if self.last > begun and time.monotonic_ns() - self.last > _QUIET:
                break
        late = sorted(self.late)
        return {
            "late": [late[min(len(late) - 1, len(late) * part // 100)] for part in (50, 95, 99)] if late else [],
            "last": self.last,
            "missing": expected - self.received,
            "disorder": self.disorder,
        }


def answer(line: str) -> None:
    """Say something."""
    print(line, flush=True)


def main() -> None:
    """Carry out the commands of standard input."""
    crowd = Crowd(int(sys.argv[1]), int(sys.argv[2]))
    answer("connected")
    while (line := crowd.turn()) != "end":
        words = line.split()
        if words[:1] == ["warm"]:
            crowd.warm()
            answer("ok")
        elif words[:1] == ["expect"]:
            answer(json.dumps(crowd.expect(int(words[1]), float(words[2]))))


if __name__ == "__main__":
    main()
