"""The clients of benchmarks.deploys and tests.live.keeper: ``python -m benchmarks.deploys_client PORT KIND=COUNT …``.

One process with one loop. Each client is an EventSource: it checks every event, and comes back with the last event ID
when the server has ended its stream, after the reconnection time that the stream has given. An event's data are
``CHANNEL NUMBER TIME xxx``: consecutive numbers, and the time of publishing (``CLOCK_MONOTONIC`` in ns). All clients
must get the same bytes of an event.

Kinds:

``normal``
    reads as fast as it can.
``slow``
    has a small receive buffer and reads ``--slow-rate`` bytes a second.
``stalling``
    has a small receive buffer and reads nothing for one to four seconds, again and again.
``returning``
    leaves after one to six seconds, every second time with a reset, and comes back within 1.5 seconds.
``plain``
    requests ``/plain`` again and again, on a new connection each time.

Commands are lines of standard input, answers lines of JSON:

``report``
    what has happened since the last report, see :meth:`Load.report`.
``reach NUMBER SECONDS``
    waits until all clients have the event NUMBER, for so long at most; meanwhile no client leaves or stalls. The answer
    is a report, with the clients that do not have it.
``arrivals``
    the events received so far, by the time in tenths of a second (``CLOCK_MONOTONIC``).

The end of standard input ends it.
"""

from __future__ import annotations

import argparse
import errno
import gc
import heapq
import itertools
import json
import os
import random
import resource
import select
import socket
import struct
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

KINDS = ("normal", "slow", "stalling", "returning", "plain")
#: Heads that are awaited at the same time, so that no backlog overflows.
_AT_ONCE = 64
#: Seconds within which a head must come.
_ANSWER = 30.0
_CONNECT = 120.0
# Of a slow or stalling client: bytes of its receive buffer, and of its segments, which loopback would make larger than
# the buffer. Linux then aborts the connection after TCP_USER_TIMEOUT (send_timeout) although the client accepts data:
# with a buffer of 4096 and loopback's own segments 20 of 20 bare sockets within 33 to 55 s, with these two none.
_SMALL_BUFFER, _SEGMENT = 16384, 1460
_READ = 16384
#: Seconds between two reads of a slow client.
_SLOW_STEP = 0.1
#: Latencies are counted in steps of 10 µs, up to four seconds.
_STEP_NS, _STEPS = 10_000, 400_000
_TENTH_NS = 100_000_000
#: Milliseconds until a client comes back, if the stream has given no reconnection time.
_RETRY = 3000
#: Clients that a report shows.
_SHOWN = 10
#: A time of an event that no later one has a gap to.
_NEVER = 1 << 62
#: Different pieces of streams that are kept: most clients receive the same ones.
_KEPT = 4096

#: Channel, number, time of publishing, ID.
Event = tuple[str, int, int, str]


class Wrong(Exception):
    """The server's bytes are no event stream."""


class Client:
    """One client, through all of its connections."""

    __slots__ = (
        "channel", "chunked", "connections", "due", "gap", "got", "id", "is_quick", "kind", "last", "next", "phase",
        "recv", "rest", "retry", "socket", "text",
    )  # fmt: skip

    def __init__(self, kind: str, channel: str) -> None:
        self.kind, self.channel = kind, channel
        self.socket: socket.socket | None = None
        self.recv: Callable[[int], bytes] = bytes
        #: Whether :meth:`Load.turn` itself may read what comes.
        self.is_quick = kind == "normal"
        #: ``away``, ``waiting`` (to connect), ``connecting``, ``head``, ``open``.
        self.phase = "away"
        self.connections = 0
        self.id = ""
        #: The number of the next event; 0 before the first one.
        self.next = 0
        self.retry = _RETRY
        #: When its last event came, and (normal ones) the longest time between two since the last report.
        self.last, self.gap = _NEVER, 0
        #: Until when its head must come; for a slow client, then, when it has read.
        self.due = 0.0
        self.chunked = False
        #: Events of this connection.
        self.got = 0
        #: Bytes that are not a whole chunk yet, and text that is not a whole block yet.
        self.rest, self.text = b"", b""


class Histogram:
    """Times in ns, counted in steps of 10 µs up to four seconds."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.counts = array("L", bytes(8 * (_STEPS + 1)))

    def add(self, ns: int) -> None:
        """Count one."""
        self.counts[min(ns // _STEP_NS, _STEPS)] += 1

    def quantile(self, part: float) -> float:
        """The time that this part of all does not exceed, in ms."""
        left = part * sum(self.counts)
        for step, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return (step + 1) * _STEP_NS / 1e6
        return 0.0


class Stream:
    """The parser of all streams. It finds what most clients receive, the same pieces, in a table."""

    def __init__(self) -> None:
        #: Pieces that held whole events, and these.
        self.known: dict[bytes, list[Event]] = {}
        self._ids: dict[tuple[str, int], tuple[str, int]] = {}
        self.counts: Counter[str] = Counter()

    def feed(self, client: Client, data: bytes) -> tuple[list[Event], bool]:
        """Take what a client has received.

        :return: its events, and whether the stream is over.
        """
        is_whole = not client.rest and not client.text
        if is_whole and (events := self.known.get(data)) is not None:
            if events:
                client.id = events[-1][3]
            return events, False
        text, over = self._payload(client, data)
        *blocks, client.text = (client.text + text).split(b"\n\n")
        before = client.retry, client.id
        events = [event for block in blocks if (event := self._event(client, block)) is not None]
        after = before[0], events[-1][3] if events else before[1]
        if (client.retry, client.id) == after and is_whole and not over and not client.rest and not client.text:
            if len(self.known) >= _KEPT:
                self.known.clear()
            self.known[data] = events
        return events, over

    @staticmethod
    def _payload(client: Client, data: bytes) -> tuple[bytes, bool]:
        """Undo the chunked transfer coding."""
        if not client.chunked:
            return data, False
        found: list[bytes] = []
        data, at = client.rest + data, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            try:
                size = int(data[at:end], 16)
            except ValueError:
                raise Wrong(f"no chunk begins with {data[at : at + 40]!r}") from None
            if size == 0:
                return b"".join(found), True
            if len(data) < end + 2 + size + 2:
                break
            if data[end + 2 + size : end + 4 + size] != b"\r\n":
                raise Wrong("a chunk does not end at its size")
            found.append(data[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        client.rest = data[at:]
        return b"".join(found), False

    def _event(self, client: Client, block: bytes) -> Event | None:
        fields: dict[bytes, bytes] = {}
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            self.counts["corrupt"] += name == b"data" and name in fields
            fields[name] = value.removeprefix(b" ")
        if b"retry" in fields:
            client.retry = int(fields[b"retry"])
        if b"id" in fields:
            client.id = fields[b"id"].decode()
        if b"event" in fields:
            # A gap that the server has noticed ("reset", "dropped"), or something that was never published.
            self.counts["resets"] += 1
            client.next = 0
            return None
        if b"data" not in fields:
            return None
        words = fields[b"data"].split(b" ")
        if len(words) != 4 or not words[1].isdigit() or not words[2].isdigit() or words[3].strip(b"x"):
            self.counts["corrupt"] += 1
            return None
        event = words[0].decode(), int(words[1]), int(words[2]), client.id
        same = client.id, hash(fields[b"data"])
        if self._ids.setdefault(event[:2], same) != same:
            self.counts["corrupt"] += 1
        return event


class Load:
    """All clients.

    :param port: the server's, on 127.0.0.1.
    :param kinds: how many clients of each kind.
    :param channels: each client follows one of them.
    :param slow_rate: bytes a second that a slow client reads.
    :param plain_pause: mean seconds between two requests of a plain client.
    """

    def __init__(
        self, port: int, kinds: dict[str, int], channels: list[str], *, slow_rate: int, plain_pause: float
    ) -> None:
        self._address = ("127.0.0.1", port)
        self._slow_rate, self._plain_pause = slow_rate, plain_pause
        names = itertools.cycle(channels)
        self.clients = [Client(kind, next(names)) for kind in KINDS for _ in range(kinds.get(kind, 0))]
        self.streams = [each for each in self.clients if each.kind != "plain"]
        self._parser = Stream()
        self.counts = self._parser.counts
        self._epoll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._timers: list[tuple[float, int, int, Client, Callable[[Client], None]]] = []
        self._order = itertools.count()
        self._waiting: deque[Client] = deque()
        self._unanswered: set[Client] = set()
        self._random = random.Random(7)
        self.late, self.answers = Histogram(), Histogram()
        self.arrivals: Counter[int] = Counter()
        #: Some of the clients whose stream has ended since the last report.
        self.ends: list[dict[str, Any]] = []
        self._cpu = 0.0
        #: Whether clients neither leave nor stall.
        self.calm = False
        self._epoll.register(0, select.EPOLLIN)
        random.Random(8).shuffle(self.clients)
        for client in self.clients:
            self._wait(client)

    # Time.

    def _after(self, seconds: float, client: Client, do: Callable[[Client], None]) -> None:
        """Do something with a client later, unless its connection is another one then."""
        due = time.monotonic() + seconds
        heapq.heappush(self._timers, (due, next(self._order), client.connections, client, do))

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, connection, client, do = heapq.heappop(self._timers)
            if connection == client.connections:
                do(client)
        for client in [each for each in self._unanswered if each.due < now]:
            self._fail(client, "unanswered")

    # Connections.

    def _wait(self, client: Client) -> None:
        client.phase = "waiting"
        self._waiting.append(client)

    def _connect(self, client: Client) -> None:
        client.connections += 1
        client.phase, client.rest, client.text, client.got = "connecting", b"", b"", 0
        client.due = time.monotonic() + _ANSWER
        client.socket = socket.socket()
        client.socket.setblocking(False)
        client.recv = client.socket.recv
        if client.kind in ("slow", "stalling"):
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        self.counts["requests"] += 1
        self._unanswered.add(client)
        self._by_fd[client.socket.fileno()] = client
        if (error := client.socket.connect_ex(self._address)) not in (0, errno.EINPROGRESS):
            self._fail(client, "refused" if error == errno.ECONNREFUSED else "failed")
            return
        self._epoll.register(client.socket, select.EPOLLOUT)

    def _send_request(self, client: Client) -> None:
        assert client.socket is not None
        path = "/plain" if client.kind == "plain" else f"/events?channel={client.channel}"
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if client.kind == "plain":
            head += "Connection: close\r\n"
        else:
            head += "Accept: text/event-stream\r\n" + (f"Last-Event-ID: {client.id}\r\n" if client.id else "")
        try:
            client.socket.sendall(f"{head}\r\n".encode())
        except OSError as error:
            self._fail(client, "refused" if error.errno == errno.ECONNREFUSED else "failed")
            return
        client.phase = "head"
        self._epoll.modify(client.socket, select.EPOLLIN)

    def _close(self, client: Client, *, abort: bool = False) -> None:
        assert client.socket is not None
        if abort:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._by_fd.pop(client.socket.fileno(), None)
        client.socket.close()  # epoll forgets it
        client.socket = None
        client.phase = "away"
        client.connections += 1
        self._unanswered.discard(client)

    def _fail(self, client: Client, what: str) -> None:
        """Count a request without an answer, and try again."""
        self.counts[f"plain {what}" if client.kind == "plain" else what] += 1
        self._close(client)
        self._after(0.2 + self._random.random() * 0.3, client, self._wait)

    def _lost(self, client: Client, how: str) -> None:
        """The server has ended the stream: come back after the reconnection time."""
        if client.phase != "open":
            self._fail(client, f"no answer, {how}")
            return
        if how == "ended" and not client.got:
            how = "turned away"
        self.counts[how] += 1
        if len(self.ends) < _SHOWN:
            self.ends.append({"how": how, **shown(client)})
        self._close(client)
        self._after(client.retry / 1000, client, self._wait)

    # What comes.

    def _read(self, client: Client, most: int = _READ) -> None:
        assert client.socket is not None
        try:
            data = client.socket.recv(most)
        except BlockingIOError:
            return
        except OSError:
            self._lost(client, "reset")
            return
        if client.phase == "head":
            self._read_head(client, data)
        elif not data:
            self._lost(client, "fin")
        else:
            self._take(client, data)

    def _take(self, client: Client, data: bytes) -> None:
        now = monotonic_ns()
        events, over = self._parser.feed(client, data)
        for channel, number, sent, _ in events:
            if number < client.next:
                self.counts["repeated"] += 1
                continue
            self.counts["received"] += 1
            self.counts["missing"] += number - client.next if client.next else 0
            self.counts["corrupt"] += channel != client.channel
            client.next = number + 1
            if client.kind == "normal":
                self.late.add(now - sent)
                client.gap = max(client.gap, now - client.last)
        if events:
            self.arrivals[now // _TENTH_NS] += len(events)
            client.got += len(events)
            client.last = now
        if over:
            self._lost(client, "ended")

    def _read_head(self, client: Client, data: bytes) -> None:
        assert client.socket is not None
        client.rest += data
        head, end, rest = client.rest.partition(b"\r\n\r\n")
        if client.kind == "plain":
            if data and not (end and rest.endswith(b"plain")):
                return
            if not client.rest.startswith(b"HTTP/1.1 200 ") or not rest.endswith(b"plain"):
                self._fail(client, f"answered {client.rest[9:12].decode(errors='replace') or 'nothing'}")
                return
            self.counts["plain"] += 1
            self.answers.add(int((time.monotonic() - client.due + _ANSWER) * 1e9))
            self._close(client)
            self._after(self._random.random() * 2 * self._plain_pause, client, self._wait)
            return
        if not data:
            self._lost(client, "fin")
            return
        if not end:
            return
        lowered = head.lower()
        if not lowered.startswith(b"http/1.1 200 ") or b"\r\ncontent-type: text/event-stream" not in lowered:
            self._fail(client, f"answered {head[9:12].decode(errors='replace')}")
            return
        client.chunked = b"\r\ntransfer-encoding: chunked" in lowered
        client.phase, client.rest = "open", b""
        self._unanswered.discard(client)
        self.counts["opened"] += 1
        self._begin_kind(client)
        if rest:
            self._take(client, rest)

    # What the kinds do.

    def _begin_kind(self, client: Client) -> None:
        if client.kind == "slow":
            assert client.socket is not None
            self._epoll.unregister(client.socket)
            client.due = time.monotonic()
            self._after(_SLOW_STEP, client, self._read_slowly)
        elif client.kind == "stalling":
            self._after(self._random.uniform(0.2, 2), client, self._stall)
        elif client.kind == "returning":
            self._after(self._random.uniform(1, 6), client, self._leave)

    def _read_slowly(self, client: Client) -> None:
        # First, as the read may end this connection. What could not be read in time is read now: a machine that is busy
        # would make it slower than the server allows.
        now = time.monotonic()
        self._after(_SLOW_STEP, client, self._read_slowly)
        most, client.due = int((now - client.due) * self._slow_rate), now
        self._read(client, max(1, most))

    def _stall(self, client: Client) -> None:
        assert client.socket is not None
        if not self.calm:
            self._epoll.unregister(client.socket)
        self._after(0 if self.calm else self._random.uniform(1, 4), client, self._read_again)

    def _read_again(self, client: Client) -> None:
        assert client.socket is not None
        if client.socket.fileno() in self._by_fd:
            try:
                self._epoll.register(client.socket, select.EPOLLIN)
            except FileExistsError:
                pass  # it has not stalled
        self._after(self._random.uniform(0.2, 2), client, self._stall)

    def _leave(self, client: Client) -> None:
        if self.calm:
            self._after(self._random.uniform(1, 6), client, self._leave)
            return
        self.counts["left"] += 1
        self._close(client, abort=self.counts["left"] % 2 == 0)
        self._after(self._random.uniform(0.05, 1.5), client, self._wait)

    # The loop.

    def turn(self, longest: float = 0.1) -> str | None:
        """Read once what has come.

        :return: a line of standard input; ``None`` without one; ``""``: its end.
        """
        while self._waiting and len(self._unanswered) < _AT_ONCE:
            self._connect(self._waiting.popleft())
        due = self._timers[0][0] - time.monotonic() if self._timers else longest
        line = None
        by_fd, find, late = self._by_fd, self._parser.known.get, self.late.counts
        received = 0
        for fd, _ in self._epoll.poll(max(0.0, min(due, longest)), 512):
            if (client := by_fd.get(fd)) is None:
                line = os.read(0, 200).decode() if fd == 0 else line
            elif client.phase == "connecting":
                self._send_request(client)
            elif not client.is_quick or client.phase != "open":
                self._read(client)
            else:
                # What most clients receive: one event in one piece, the next one. As little work as can be.
                try:
                    data = client.recv(_READ)
                except BlockingIOError:
                    continue
                except OSError:
                    self._lost(client, "reset")
                    continue
                if not data:
                    self._lost(client, "fin")
                    continue
                events = find(data)
                if events is None or len(events) != 1 or client.rest or client.text:
                    self._take(client, data)
                    continue
                channel, number, sent, event_id = events[0]
                if number != client.next or channel != client.channel:
                    self._take(client, data)
                    continue
                now = monotonic_ns()
                client.next = number + 1
                client.id = event_id
                client.got += 1
                if now - client.last > client.gap:
                    client.gap = now - client.last
                client.last = now
                late[min((now - sent) // _STEP_NS, _STEPS)] += 1
                received += 1
        if received:
            self.arrivals[monotonic_ns() // _TENTH_NS] += received
            self.counts["received"] += received
        self._run_timers()
        return line

    def behind(self, number: int) -> list[Client]:
        """The clients that do not have an event yet."""
        return [each for each in self.streams if each.next <= number or each.phase != "open"]

    def report(self) -> dict[str, Any]:
        """What has happened since the last report.

        ``received``, ``missing``, ``repeated`` events; ``corrupt``: not the same bytes for all, or no event of ours;
        ``resets``: gaps that the server has noticed. ``ended``, ``fin``, ``reset``: streams that the server has ended
        with a last chunk, without one, and by a reset; ``turned away``: with a last chunk before any event; ``ends``
        has some of them.
        ``cpu``: seconds of this process.
        ``requests``, of them ``opened`` streams and ``plain`` answers; all other names are failures.
        """
        gaps = sorted(each.gap for each in self.streams if each.kind == "normal") or [0]
        found = {
            **self.counts,
            "cpu": time.process_time() - self._cpu,
            "connected": sum(each.phase == "open" for each in self.streams),
            "late_p50": self.late.quantile(0.5),
            "late_p99": self.late.quantile(0.99),
            "late_most": self.late.quantile(1),
            "gap_p50": gaps[len(gaps) // 2] / 1e6,
            "gap_most": gaps[-1] / 1e6,
            "ends": self.ends,
            "plain_p50": self.answers.quantile(0.5),
            "plain_p99": self.answers.quantile(0.99),
            "plain_most": self.answers.quantile(1),
        }
        self._cpu = time.process_time()
        self.ends = []
        self.counts.clear()
        self.late.clear()
        self.answers.clear()
        for each in self.streams:
            each.gap = 0
        return found


def shown(client: Client) -> dict[str, Any]:
    """A client for a report."""
    port = client.socket.getsockname()[1] if client.socket is not None else 0
    ago = (monotonic_ns() - client.last) / 1e9 if client.last != _NEVER else None
    names = ("kind", "phase", "channel", "next", "id", "connections", "retry")
    return {**{name: getattr(client, name) for name in names}, "port": port, "last_ago": ago}


def _reach(load: Load, number: int, seconds: float) -> dict[str, Any]:
    start = time.monotonic()
    load.calm = True
    behind = load.behind(number)
    while behind and time.monotonic() < start + seconds:
        load.turn(0.05)
        behind = [each for each in behind if each.next <= number or each.phase != "open"]
    load.calm = False
    behind = load.behind(number)
    clients = [shown(each) for each in behind[:_SHOWN]]
    for each in load.streams:
        each.last = _NEVER  # the publisher pauses now
    taken = time.monotonic() - start
    return {**load.report(), "behind": len(behind), "seconds": taken, "clients": clients}


def _send(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Carry out the commands of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("kinds", nargs="+", metavar="KIND=COUNT")
    parser.add_argument("--channels", nargs="+", default=["deploys"])
    parser.add_argument("--slow-rate", type=int, default=4000)
    parser.add_argument("--plain-pause", type=float, default=0.1)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kinds = {name: int(count) for name, _, count in (each.partition("=") for each in given.kinds)}
    load = Load(given.port, kinds, given.channels, slow_rate=given.slow_rate, plain_pause=given.plain_pause)
    gc.freeze()
    gc.disable()
    start = time.monotonic()
    try:
        load.calm = True  # until the first "reach": a client without any event has no ID to come back with
        while any(each.phase != "open" for each in load.streams):
            if load.turn() == "":
                return
            if time.monotonic() > start + _CONNECT:
                raise Wrong(f"{len(load.behind(0))} clients are not connected: {dict(load.counts)}")
        _send({"connected": len(load.streams), "seconds": time.monotonic() - start})
        while (line := load.turn()) != "":
            match line.split() if line else []:
                case ["report"]:
                    _send(load.report())
                case ["reach", number, seconds]:
                    _send(_reach(load, int(number), float(seconds)))
                case ["arrivals"]:
                    _send({str(tenth): count for tenth, count in sorted(load.arrivals.items())})
    except Wrong as error:
        _send({"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
