"""Relays: the reactor reads the upstream's socket and writes the client's. Beside them, the same by a thread."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3
from requests.adapters import HTTPAdapter

from ssesync import CloseReason, Event, EventStream, Relay, StreamStats, streams
from ssesync.detached import relaying
from ssesync.wire import Decoder
from ssesync.wire.encoder import encode_keep_alive

from .small_server import TIMEOUT, Answer, SmallServer
from .upstreams import FIN, HOLD, RST, RawUpstream, cut, get

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSED = HEAD + b"Connection: close\r\n\r\n"
EVENT = b"data: x\n\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Ended:
    """An ``on_close``."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self.reason: CloseReason | None = None
        self.stats: StreamStats | None = None

    def __call__(self, reason: CloseReason, stats: StreamStats) -> None:
        self.reason, self.stats = reason, stats
        self._called.set()

    def wait(self) -> CloseReason | None:
        assert self._called.wait(TIMEOUT), "the stream did not end"
        return self.reason


def serve(upstream: RawUpstream, read: float | None = None, chunked: bool = True, **options: Any) -> SmallServer:
    """Relay an upstream to one client."""
    environ = options.pop("environ", {})
    relay = options.pop("relay", {})

    def make() -> EventStream:
        return EventStream(Relay(get(upstream.url, read=read), **relay), **options)

    return SmallServer(make, chunked=chunked, **environ)


def detached(server: SmallServer) -> relaying.Relay:
    """The client, once the reactor has both sockets."""
    assert server.free.wait(TIMEOUT)
    assert server.stream is not None
    connection = server.stream._detached
    assert isinstance(connection, relaying.Relay), connection
    return connection


def eventually(check: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


# The same bytes both ways.


@dataclass
class Script:
    """What an upstream sends, and how its client asks and reads."""

    steps: list[Any]
    body: bytes
    complete: bool
    chunked: bool
    environ: dict[str, Any]
    options: dict[str, Any]
    pace: float

    @classmethod
    def of(cls, seed: int) -> Script:
        rng = random.Random(seed)
        eol = rng.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r"])
        # What breaks before its first event is the view's to answer for, if the view waits for that.
        first = (b"\xef\xbb\xbf" if rng.random() < 0.1 else b"") + b"data: first" + 2 * eol
        body = first + cls._body(rng, eol)
        least = len(first)
        framing = rng.choice(["chunks", "chunks", "chunks", "length", "closed"])
        end = rng.choice(["complete", "complete", "complete", "early", "garbage"])
        sizes = cls._sizes(rng, len(body))
        if framing == "chunks":
            wire = b"".join(map(chunk, [first, *cut(body[least:], cls._sizes(rng, len(body)))]))
            least = len(chunk(first))
            if rng.random() < 0.2:
                wire = wire.replace(b"\r\n", b";name=value\r\n", 1)
                least += 11
            head, last = CHUNKED, rng.choice([LAST, LAST, b"0\r\nX-Trailer: 1\r\n\r\n", b"00\r\n\r\n"])
            if end == "garbage":
                last = b"zz\r\nwhat is this\r\n"
        elif framing == "length":
            head, wire, last = HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body, b""
            end = end.replace("garbage", "complete")
        else:
            head, wire, last, end = (
                rng.choice([CLOSED, HEAD.replace(b"1.1", b"1.0", 1) + b"\r\n"]),
                body,
                b"",
                "complete",
            )
        if end == "early":
            wire, last = wire[: rng.randint(least, len(wire) - 1)], b""
        steps: list[Any] = [head + wire[:least], *cut(wire[least:] + last, sizes)]
        if rng.random() < 0.5:
            steps = [each for step in steps for each in (step, lambda: time.sleep(0.0003))]
        # One that has ended before it is detached is read by a thread.
        steps += [lambda: time.sleep(0.03), FIN]
        environ = {"REQUEST_METHOD": rng.choice(["GET", "GET", "POST"])}
        if rng.random() < 0.4:
            environ["HTTP_ACCEPT"] = "text/event-stream"
        options = {
            "keep_alive": None,
            "resumable": rng.choice(["auto", "auto", True, False]),
            "error_event": rng.choice([None, Event("oh", type="trouble"), lambda error: Event(type(error).__name__)]),
        }
        return cls(steps, body, end == "complete", rng.random() < 0.7, environ, options, rng.choice([0, 0, 0.001]))

    @staticmethod
    def _sizes(rng: random.Random, size: int) -> Iterator[int]:
        of = rng.choice([[1, 2, 3] if size < 1_000 else [50], [10, 100, 1000], [5_000, 60_000], [200_000]])
        return iter(lambda: rng.choice(of), None)

    @staticmethod
    def _body(rng: random.Random, eol: bytes) -> bytes:
        words = [b"", b"x", b" y", b":", "größer".encode(), b"data: z", b"a" * 300, b"a" * rng.choice([10, 9_000])]
        lines: list[bytes] = []
        for number in range(rng.choice([1, 3, 30])):
            kind = rng.choice([b"id: %d" % number, b"event: token", b"id", b"retry: 10", b": note", b"data"])
            lines += [kind + eol, b"data: " + rng.choice(words) + eol, eol]
            lines.append(rng.choice([b"", b"", b": keep" + eol, b"retry: 2" + eol, eol]))
        if rng.random() < 0.2:
            lines.append(b"data: [DONE]")
        body = b"".join(lines)
        return body[: rng.choice([100, 3_000, None])]


def run(script: Script, *, detach: bool) -> tuple[Answer, Ended, object]:
    ended = Ended()
    with RawUpstream(lambda: script.steps) as upstream:

        def make() -> EventStream:
            # The wait that a thread needs to begin is none of the differences.
            options = {"first_event_timeout": 0, "detach": detach, "on_close": ended, **script.options}
            return EventStream(Relay(get(upstream.url)), **options)

        server = SmallServer(make, chunked=script.chunked, **script.environ)
        answer = server.read(lambda received: time.sleep(script.pace))
        ended.wait()
        assert server.stream is not None
        return answer, ended, server.stream._detached


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_client_gets_is_the_same_by_the_reactor_and_by_a_thread() -> None:
    relayed: list[bool] = []

    def both(seed: int) -> tuple[int, Any, Any, bool]:
        script = Script.of(seed)
        results = []
        for detach in (True, False):
            answer, ended, connection = run(script, detach=detach)
            assert detach or connection is None, seed
            relayed.append(type(connection) is relaying.Relay)
            assert ended.stats is not None
            results.append((answer.body, answer.complete, answer.reset, ended.reason, ended.stats.events))
        if script.complete:
            body = answer.body.removeprefix(b":ok\n")
            assert body == script.body.removeprefix(b"\xef\xbb\xbf"), seed
            assert ended.reason == "done"
        else:
            assert ended.reason == "error"
        return seed, results[0], results[1], script.complete

    with ThreadPoolExecutor(8) as pool:
        for seed, reactor, thread, _ in pool.map(both, range(100)):
            assert reactor == thread, f"seed {seed}"
    assert sum(relayed) > 60
    assert eventually(lambda: not streams.all())


# What is read, and when.

MANY = b"".join(b"data: %d\n\n" % number for number in range(400))
WAYS = {
    "a chunk each": [CHUNKED, *(chunk(b"data: %d\n\n" % number) for number in range(400)), LAST],
    "one large chunk": [CHUNKED, chunk(MANY) + LAST],
    "Content-Length": [HEAD + b"Content-Length: %d\r\n\r\n" % len(MANY), MANY],
    "close-delimited": [CLOSED, MANY],
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("way", WAYS)
def test_every_framing_is_passed_on_and_its_end_is_the_stream_s(
    way: str, tls: bool, certificate: tuple[ssl.SSLContext, str]
) -> None:
    ended, go = Ended(), threading.Event()

    def script() -> Iterator[Any]:
        yield WAYS[way][0]
        yield lambda: go.wait(TIMEOUT)
        yield from WAYS[way][1:]

    context, verify = certificate
    with RawUpstream(script, tls=context if tls else None) as upstream:
        server = SmallServer(lambda: EventStream(Relay(get(upstream.url, verify=verify)), on_close=ended))
        connection = detached(server)
        assert connection.describe()["tier"] == "detached"
        go.set()
        answer = server.read()
    assert answer.body == b":ok\n" + MANY
    assert answer.complete
    assert ended.wait() == "done"
    assert ended.stats is not None
    assert (ended.stats.events, ended.stats.bytes) == (400, len(answer.body))


def test_tls_records_larger_than_what_is_received_at_a_time_do_not_wait(
    certificate: tuple[ssl.SSLContext, str],
) -> None:
    context, verify = certificate
    events = [b"data: " + bytes([65 + number]) * 200_000 + b"\n\n" for number in range(5)]
    with RawUpstream(lambda: [CHUNKED, *map(chunk, events), HOLD], tls=context) as upstream:
        server = SmallServer(lambda: EventStream(Relay(get(upstream.url, verify=verify)), keep_alive=None))
        data = b""
        while data.count(b"\n\n") < 5:
            data += server.client.recv(65536)
        server.client.close()
        assert upstream.left.acquire(timeout=TIMEOUT)


@pytest.mark.parametrize("detach", [True, False], ids=["reactor", "thread"])
def test_a_tls_connection_that_is_cut_off_is_no_end_of_a_body(
    detach: bool, certificate: tuple[ssl.SSLContext, str]
) -> None:
    context, verify = certificate
    ended = Ended()
    steps = [CLOSED + EVENT, lambda: time.sleep(0.1), FIN]
    with RawUpstream(lambda: steps, tls=context) as upstream:
        server = SmallServer(
            lambda: EventStream(Relay(get(upstream.url, verify=verify)), detach=detach, on_close=ended),
            REQUEST_METHOD="POST",
        )
        answer = server.read()
    assert answer.body.startswith(b":ok\n" + EVENT + b"event: error\n")
    assert not answer.complete
    assert ended.wait() == "error"


def test_a_unix_socket_and_a_proxy_s_tunnel_are_read_too(
    tmp_path: Path, certificate: tuple[ssl.SSLContext, str]
) -> None:
    class UnixConnection(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            made = socket.socket(socket.AF_UNIX)
            made.connect(str(tmp_path / "s"))
            return made

    class UnixPool(urllib3.HTTPConnectionPool):
        ConnectionCls = UnixConnection

    class UnixAdapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
            return UnixPool("localhost")

    steps = [CHUNKED, lambda: time.sleep(0.05), chunk(EVENT), LAST]
    with RawUpstream(lambda: steps, family=socket.AF_UNIX, address=str(tmp_path / "s")):
        session = requests.Session()
        session.mount("http://unix", UnixAdapter())
        server = SmallServer(lambda: EventStream(Relay(session.get("http://unix/", stream=True))))
        detached(server)
        assert server.read().body == b":ok\n" + EVENT
    context, verify = certificate
    with RawUpstream(lambda: steps, tls=context) as upstream, Proxy() as proxy:

        def make() -> EventStream:
            session = requests.Session()
            session.trust_env = False
            options = {"proxies": {"https": proxy.url}, "verify": verify}
            return EventStream(Relay(session.get(upstream.url, stream=True, **options)))

        server = SmallServer(make)
        detached(server)
        assert server.read().body == b":ok\n" + EVENT
        assert proxy.tunnels == 1


class Proxy(RawUpstream):
    """Passes bytes both ways behind a CONNECT."""

    tunnels = 0

    def __init__(self) -> None:
        super().__init__(lambda: ())

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        host, _, port = head.split()[1].decode().partition(":")
        other = socket.create_connection((host, int(port)))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.tunnels += 1
        thread = threading.Thread(target=self._pass_on, args=(connection, other))
        thread.start()
        self._pass_on(other, connection)
        thread.join(TIMEOUT)
        other.close()
        connection.close()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("event", [None, "ping"])
def test_a_keep_alive_comes_between_two_events_only(event: str | None) -> None:
    keep_alive = encode_keep_alive(event)
    halves = [b"data: on", b"e\n", b"\n", b"data: two\n\n"]
    go = threading.Semaphore(0)
    steps: list[Any] = [CHUNKED]
    for half in halves:
        steps += [chunk(half), lambda: go.acquire(timeout=TIMEOUT)]
    with RawUpstream(lambda: [*steps, LAST]) as upstream:
        server = serve(upstream, keep_alive=0.1, keep_alive_event=event)
        detached(server)
        data = b""
        for count in range(len(halves)):
            while data.count(keep_alive) < 2 * (count + 1):
                data += server.client.recv(65536)
            go.release()
        while piece := server.client.recv(65536):
            data += piece
        server.client.close()
    body = Answer(data, reset=False).body
    assert body.replace(keep_alive, b"") == b":ok\ndata: one\n\ndata: two\n\n"


# Ends.


def test_the_client_s_leaving_ends_the_upstream_s_connection_at_once() -> None:
    ended = Ended()
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), HOLD]) as upstream:
        server = serve(upstream, on_close=ended, keep_alive=None)
        detached(server)
        while b"data: x" not in server.client.recv(65536):
            pass
        left = time.monotonic()
        server.client.close()
        assert upstream.left.acquire(timeout=TIMEOUT)
        print(f"{1000 * (time.monotonic() - left):.2f} ms")
        assert ended.wait() == "client_gone"


@pytest.mark.parametrize("how", ["cancel", "stop", "lifetime"])
def test_every_end_by_the_server_ends_the_upstream_and_is_reported_to_the_client(how: str) -> None:
    ended = Ended()
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), HOLD]) as upstream:
        server = serve(
            upstream,
            on_close=ended,
            environ={"REQUEST_METHOD": "POST"},
            max_lifetime=0.2 if how == "lifetime" else None,
        )
        connection = detached(server)
        while b"data: x" not in server.client.recv(65536):
            pass
        if how != "lifetime":
            getattr(connection, how)()
        assert upstream.left.acquire(timeout=TIMEOUT)
        answer = server.read()
        assert b"event: error\n" in answer.head
        assert b"0\r\n\r\n" not in answer.head
        assert ended.wait() == {"cancel": "cancelled", "stop": "shutdown"}.get(how, how)


def test_closing_the_relay_ends_the_stream() -> None:
    ended, made = Ended(), []
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), HOLD]) as upstream:

        def make() -> EventStream:
            made.append(Relay(get(upstream.url)))
            return EventStream(made[0], on_close=ended)

        server = SmallServer(make)
        detached(server)
        while b"data: x" not in server.client.recv(65536):
            pass
        for _ in range(3):
            made[0].close()
        assert upstream.left.acquire(timeout=TIMEOUT)
        assert server.read().head == LAST.removesuffix(b"\r\n\r\n")
        assert ended.wait() == "done"


@pytest.mark.parametrize("cut_off", [FIN, RST])
def test_a_broken_upstream_is_reported_to_the_client_and_logged(
    cut_off: object, caplog: pytest.LogCaptureFixture
) -> None:
    ended, go = Ended(), threading.Event()
    steps = [CHUNKED, chunk(b"id: 1\ndata: whole\n\ndata: ha"), lambda: go.wait(TIMEOUT), cut_off]
    with RawUpstream(lambda: steps) as upstream:
        server = serve(upstream, on_close=ended, environ={"REQUEST_METHOD": "POST"})
        detached(server)
        go.set()
        answer = server.read()
        assert ended.wait() == "error"
    _, whole, error = Decoder().feed(answer.body.replace(b":ok\n", b"data: ok\n\n"))
    assert (whole.data, error.type) == ("whole", "error")
    assert not answer.complete
    assert eventually(lambda: [record for record in caplog.records if "Relay failed" in record.getMessage()])
    (record,) = [record for record in caplog.records if "Relay failed" in record.getMessage()]
    assert record.exc_info is not None
    assert "connection" in str(record.exc_info[1])


@pytest.mark.slow
def test_an_upstream_that_is_silent_beyond_its_read_timeout_counts_as_broken() -> None:
    ended = Ended()
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), HOLD]) as upstream:
        server = serve(upstream, read=0.3, on_close=ended)
        answer = server.read()
        assert upstream.left.acquire(timeout=TIMEOUT)
    assert answer.body.startswith(b":ok\n" + EVENT + b"event: error\n")
    assert ended.wait() == "error"


def test_too_large_an_event_ends_the_stream_and_the_upstream() -> None:
    def flood() -> Iterator[bytes]:
        yield CHUNKED + chunk(EVENT)
        while True:
            yield chunk(b"data: " + b"y" * 5_000 + b"\n")

    with RawUpstream(flood) as upstream:
        server = serve(upstream, relay={"max_event_size": 20_000})
        answer = server.read()
        assert upstream.left.acquire(timeout=TIMEOUT)
    assert answer.body.startswith(b":ok\n" + EVENT + b"event: error\n")


def flood() -> Iterator[bytes]:
    yield CHUNKED
    while True:
        yield chunk(b"data: " + b"x" * 10_000 + b"\n\n")


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_the_upstream_back_and_is_cut_off() -> None:
    ended = Ended()
    with RawUpstream(flood) as upstream:
        server = serve(upstream, send_timeout=1.5, on_close=ended)
        detached(server)

        def stands_still() -> bool:
            before = upstream.sent
            time.sleep(0.2)
            return upstream.sent == before > 0

        assert eventually(stands_still)
        assert upstream.sent < 20_000_000  # most of it in the kernel
        assert ended.wait() == "stalled"
        assert upstream.left.acquire(timeout=TIMEOUT)
        server.client.close()


@pytest.mark.slow
def test_an_upstream_that_ends_while_its_client_is_slow_is_passed_on_whole() -> None:
    events = b"".join(b"data: %d %b\n\n" % (number, b"x" * 5_000) for number in range(400))
    ended = Ended()
    with RawUpstream(lambda: [CHUNKED, chunk(events), LAST, FIN]) as upstream:
        server = serve(upstream, on_close=ended)
        time.sleep(0.3)
        answer = server.read()
    assert answer.body == b":ok\n" + events
    assert answer.complete
    assert ended.wait() == "done"


# What is read by a thread, and what becomes of everything.


def test_an_upstream_of_which_the_client_has_not_taken_all_is_not_done() -> None:
    ended = Ended()
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), LAST, HOLD]) as upstream:
        server = serve(upstream, on_close=ended)
        relay = detached(server)
        server.read()
        assert ended.wait() == "done"
    source = relay._source
    source.cancel("cancelled")
    assert source.reason == "done"
    source.cancel("stalled", dropped=True)
    assert source.reason == "stalled"


class Counting(Relay):
    """A relay that does more than pass bytes on."""

    def produce(self, writer: Any) -> None:
        super().produce(writer)


@pytest.mark.parametrize("what", ["subclass", "transform", "coding", "begun", "ended"])
def test_anything_else_goes_by_a_thread_and_reaches_the_client(what: str) -> None:
    body = chunk(EVENT) + LAST
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: deflate\r\n\r\n") if what == "coding" else CHUNKED
    if what == "coding":
        body = chunk(zlib.compress(EVENT)) + LAST
    steps = [head, lambda: None if what == "ended" else time.sleep(0.1), body, FIN]
    with RawUpstream(lambda: steps) as upstream:

        def make() -> EventStream:
            response = get(upstream.url)
            if what == "begun":
                assert response.raw.read(1) == b"d"
            if what == "ended":
                time.sleep(0.2)
            kind = Counting if what == "subclass" else Relay
            options = {"transform": lambda event: event} if what == "transform" else {}
            return EventStream(kind(response, **options))

        server = SmallServer(make)
        answer = server.read()
    assert answer.body == b":ok\n" + EVENT.removeprefix(b"d" if what == "begun" else b"")
    assert answer.complete
    assert server.stream is not None
    assert not isinstance(server.stream._detached, relaying.Relay)


def test_a_relay_takes_neither_a_thread_nor_a_place_of_its_pool_nor_keeps_its_response() -> None:
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), HOLD]) as upstream, requests.Session() as session:
        session.trust_env = False
        session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
        responses = []

        def make() -> EventStream:
            response = session.get(upstream.url, stream=True, timeout=TIMEOUT)
            responses.append(weakref.ref(response))
            return EventStream(Relay(response), keep_alive=None)

        before = threading.active_count()
        servers = [SmallServer(make) for _ in range(5)]
        for server in servers:
            detached(server)
        assert eventually(lambda: threading.active_count() <= before + 10 + 5)  # five of the upstream
        assert not [thread for thread in threading.enumerate() if thread.name == "ssesync-Relay"]
        assert streams.snapshot()["producers"]["running"] == 0
        for server in servers:
            server.stream = None
        gc.collect()
        assert not [each for each in responses if each() is not None]
        for server in servers:
            server.client.close()
        for _ in servers:
            assert upstream.left.acquire(timeout=TIMEOUT)


def test_a_forked_child_keeps_no_upstream_open() -> None:
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), HOLD]) as upstream:
        server = serve(upstream, keep_alive=None)
        detached(server)
        while b"data: x" not in server.client.recv(65536):
            pass
        before = len(list(Path("/proc/self/fd").iterdir()))
        out, into = os.pipe()
        child = os.fork()
        if not child:
            server.client.close()
            os.write(into, b"%d" % len(list(Path("/proc/self/fd").iterdir())))
            time.sleep(TIMEOUT)
            os._exit(0)
        try:
            held = int(os.read(out, 10))
            assert held < before + 2  # the pipe's are two more
            server.client.close()
            assert upstream.left.acquire(timeout=90), "the child holds the upstream's connection"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(out)
            os.close(into)


@pytest.mark.slow
def test_descriptors_are_flat_over_many_relays() -> None:
    with RawUpstream(lambda: [CHUNKED, chunk(EVENT), lambda: time.sleep(0.01), LAST]) as upstream:

        def one() -> None:
            server = serve(upstream)
            assert server.read().body == b":ok\n" + EVENT

        one()
        assert eventually(lambda: not streams.all())
        gc.collect()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(50):
            one()
        assert eventually(lambda: not streams.all())
        gc.collect()
        assert eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 2)
