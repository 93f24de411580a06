"""The hand-over of a connection, by a socket pair that plays the server: to the loop, or back, without a byte lost."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import resource
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from ssesync import Settings, SettingsError
from ssesync.detached import handover as module
from ssesync.detached.detacher import takeover_of
from ssesync.detached.handover import SocketTakeover
from ssesync.server.detaching import Head
from ssesync.server.wsgi_sockets import ClientSocket

from ...cases import each_case

TIMEOUT = 90.0
OPEN_FILES = Path("/proc/self/fd")
OPENING = b":ok\n"
HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n4\r\n:ok\n\r\n"
RAW = HEAD + b"\r\n:ok\n"
OTHER = HEAD + b"Content-Encoding: gzip\r\n\r\nsomething else"
GIVEN = {
    CHUNKED: HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\n:ok\n\r\n",
    RAW: HEAD + b"Connection: close\r\n\r\n:ok\n",
}
#: The timeout of the server's socket: what is blocking to Python, what is so to the kernel, what is neither.
MODES = {"blocking": None, "with a timeout": TIMEOUT, "not blocking": 0.0}


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


class Connection:
    """A client, the server's socket, and what takes it over."""

    def __init__(self, make: Callable[[], tuple[socket.socket, socket.socket]], timeout: float | None) -> None:
        self.client, self.server = make()
        self.client.settimeout(TIMEOUT)
        self.server.settimeout(timeout)
        self.given: list[tuple[int, Head]] = []
        self.takeover = SocketTakeover(ClientSocket(self.server.fileno()), OPENING)

    def give(self, fd: int, head: Head) -> None:
        self.given.append((fd, head))

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.client.recv(size - len(data))
            assert piece, f"the connection ended after {data!r}"
            data += piece
        return data

    def client_gets_nothing(self) -> bool:
        self.client.setblocking(False)
        try:
            return not self.client.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.client.settimeout(TIMEOUT)

    def both_ways(self) -> None:
        """Fail unless the server's socket leads to the client."""
        self.server.send(b"to the client")
        assert self.read(13) == b"to the client"
        self.client.send(b"to the server")
        with contextlib.ExitStack() as stack:
            timeout = self.server.gettimeout()
            stack.callback(self.server.settimeout, timeout)
            self.server.settimeout(TIMEOUT)
            assert self.server.recv(100) == b"to the server"

    def reset(self) -> None:
        """The client leaves without a word."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    def close(self) -> None:
        self.takeover.close()
        for fd, _ in self.given:
            os.close(fd)
        self.client.close()
        self.server.close()


def descriptors() -> set[tuple[str, str]]:
    """What is open: each by its number and by what it leads to."""
    if not OPEN_FILES.is_dir():
        pytest.skip("there is no /proc")
    found = set()
    for each in OPEN_FILES.iterdir():
        with contextlib.suppress(OSError):  # closed since the listing, as the listing's own is
            found.add((each.name, str(each.readlink())))
    return found


@pytest.fixture(params=[tcp_pair, pytest.param(socket.socketpair, marks=pytest.mark.slow)], ids=["tcp", "unix"])
def make(request: pytest.FixtureRequest) -> Callable[[], tuple[socket.socket, socket.socket]]:
    pair: Callable[[], tuple[socket.socket, socket.socket]] = request.param
    return pair


Connect = Callable[[], contextlib.AbstractContextManager[Connection]]


@pytest.fixture(params=MODES)
def connect(request: pytest.FixtureRequest, make: Callable[[], tuple[socket.socket, socket.socket]]) -> Connect:
    """Makes a connection, for a test of several cases."""

    @contextlib.contextmanager
    def connected() -> Iterator[Connection]:
        before = descriptors()
        connection = Connection(make, MODES[request.param])
        try:
            yield connection
        finally:
            connection.close()
        # A loop of another test may have closed some of its own meanwhile.
        assert not descriptors() - before

    return connected


@pytest.fixture
def connection(connect: Connect) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


# Taken over.


@pytest.mark.parametrize("written", [CHUNKED, RAW], ids=["chunked", "raw"])
def test_what_the_server_wrote_is_given_with_the_clients_descriptor_and_the_client_gets_nothing_else(
    connection: Connection, written: bytes
):
    assert connection.takeover.begin()
    connection.server.send(written)
    assert connection.client_gets_nothing()
    assert connection.takeover.complete(connection.give)
    [(fd, head)] = connection.given
    assert head == Head(GIVEN[written], written is CHUNKED)
    assert connection.client_gets_nothing()
    os.write(fd, head.wire)
    assert connection.read(len(head.wire)) == head.wire


def test_what_is_written_in_pieces_is_taken_together(connection: Connection):
    assert connection.takeover.begin()
    for at in range(0, len(CHUNKED), 10):
        connection.server.send(CHUNKED[at : at + 10])
    assert connection.takeover.complete(connection.give)
    assert connection.given[0][1].wire == GIVEN[CHUNKED]


def test_the_descriptor_that_is_given_does_not_block(connection: Connection):
    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert connection.takeover.complete(connection.give)
    fd = connection.given[0][0]
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)
    with socket.socket(fileno=os.dup(fd)) as handle:
        # The kernel doubles it.
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 65536
        if handle.family != socket.AF_UNIX:
            assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_whatever_the_server_does_next_the_client_does_not_notice(connection: Connection):
    before = connection.server.gettimeout()
    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert connection.takeover.complete(connection.give)
    assert connection.server.recv(100) == b"", "the server waits for another request"
    connection.server.send(b"0\r\n\r\n")
    connection.takeover.close()
    with contextlib.suppress(OSError):
        connection.server.shutdown(socket.SHUT_RDWR)
    assert connection.server.gettimeout() == before
    connection.server.close()
    assert connection.client_gets_nothing()
    os.write(connection.given[0][0], b"event")
    assert connection.read(5) == b"event"
    connection.client.send(b"said")
    with socket.socket(fileno=os.dup(connection.given[0][0])) as handle:
        handle.settimeout(TIMEOUT)
        assert handle.recv(100) == b"said"


@pytest.mark.parametrize("after", [b"", b"0\r\n\r\n"])
def test_a_servers_last_chunk_is_no_loss(connection: Connection, after: bytes, caplog: pytest.LogCaptureFixture):
    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert connection.takeover.complete(connection.give)
    if after:
        connection.server.send(after)
    for _ in range(3):
        connection.takeover.close()
    assert not caplog.records


def test_bytes_after_the_opening_are_lost_with_a_warning(connection: Connection, caplog: pytest.LogCaptureFixture):
    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert connection.takeover.complete(connection.give)
    connection.server.send(b"HTTP/1.1 200 OK\r\n\r\nthe answer to a second request")
    connection.takeover.close()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    # How many they are, and not a word of them.
    assert record.getMessage().startswith("49 bytes ")


def test_a_client_may_have_as_long_as_the_settings_take(connection: Connection):
    longest = Settings(send_timeout=2**31 - 1)
    connection.takeover = SocketTakeover(ClientSocket(connection.server.fileno()), OPENING, longest.send_timeout)
    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert connection.takeover.complete(connection.give)


def test_a_client_that_can_not_be_prepared_for_the_loop_goes_to_the_server_as_it_wrote_it(connection: Connection):
    nonsense: Any = "no number"
    connection.takeover = SocketTakeover(ClientSocket(connection.server.fileno()), OPENING, nonsense)
    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert not connection.takeover.complete(connection.give)
    assert not connection.given
    assert connection.takeover.why.startswith("TypeError")
    assert connection.read(len(CHUNKED)) == CHUNKED
    connection.both_ways()


# Given back.


@each_case(
    "written", [b"", b"HTTP/1.1 200 OK\r\n", OTHER, CHUNKED[:-1], CHUNKED + b"x", CHUNKED + CHUNKED, OTHER * 100]
)
def test_anything_else_goes_to_the_client_and_the_server_goes_on(connect: Connect, written: bytes):
    with connect() as connection:
        timeout, blocks = connection.server.gettimeout(), os.get_blocking(connection.server.fileno())
        assert connection.takeover.begin()
        if written:
            connection.server.send(written)
        assert not connection.takeover.complete(connection.give)
        assert not connection.given
        assert connection.takeover.why
        assert connection.read(len(written)) == written
        assert connection.server.gettimeout() == timeout
        assert os.get_blocking(connection.server.fileno()) is blocks
        connection.both_ways()
        connection.takeover.close()
        connection.both_ways()


def test_what_nobody_takes_goes_to_the_client_as_the_server_wrote_it(connection: Connection):
    blocks = os.get_blocking(connection.server.fileno())

    def give(fd: int, head: Head) -> None:
        raise RuntimeError("there can't be another thread")

    assert connection.takeover.begin()
    connection.server.send(CHUNKED)
    assert not connection.takeover.complete(give)
    assert connection.takeover.why == "RuntimeError: there can't be another thread"
    assert connection.read(len(CHUNKED)) == CHUNKED
    assert os.get_blocking(connection.server.fileno()) is blocks
    connection.both_ways()


@each_case("end", ["undo", "close"])
@each_case("written", [b"", CHUNKED[:30], CHUNKED, OTHER], ids=["nothing", "a part", "all", "other"])
def test_an_answer_that_ends_early_is_the_servers_again_with_what_there_was_of_it(
    connect: Connect, written: bytes, end: str
):
    with connect() as connection:
        timeout, blocks = connection.server.gettimeout(), os.get_blocking(connection.server.fileno())
        assert connection.takeover.begin()
        if written:
            connection.server.send(written)
        for _ in range(3):
            getattr(connection.takeover, end)()
        assert connection.read(len(written)) == written
        assert connection.server.gettimeout() == timeout
        assert os.get_blocking(connection.server.fileno()) is blocks
        connection.both_ways()


@pytest.mark.parametrize("end", ["undo", "close"])
def test_what_never_began_ends_without_a_trace(connection: Connection, end: str):
    getattr(connection.takeover, end)()
    connection.both_ways()


@each_case("inheritable", [True, False])
@each_case("back", [True, False])
def test_a_child_inherits_the_servers_descriptor_or_not_as_before(connect: Connect, inheritable: bool, back: bool):
    with connect() as connection:
        connection.server.set_inheritable(inheritable)
        assert connection.takeover.begin()
        connection.server.send(OTHER if back else CHUNKED)
        assert connection.server.get_inheritable() is inheritable
        assert connection.takeover.complete(connection.give) is not back
        assert connection.server.get_inheritable() is inheritable


# A client that is gone.


@each_case("leave", ["close", "reset"])
@each_case("when", ["before it begins", "before the head", "behind the head"])
def test_a_client_that_has_left_is_given_to_the_loop_to_find(connect: Connect, when: str, leave: str):
    with connect() as connection:

        def step(now: str) -> None:
            if now == when:
                getattr(connection.client if leave == "close" else connection, leave)()

        step("before it begins")
        assert connection.takeover.begin()
        step("before the head")
        connection.server.send(CHUNKED)
        step("behind the head")
        assert connection.takeover.complete(connection.give)
        with socket.socket(fileno=os.dup(connection.given[0][0])) as handle:
            handle.settimeout(TIMEOUT)
            with contextlib.suppress(ConnectionError):
                assert not handle.recv(1)


@each_case("leave", ["close", "reset"])
@each_case("written", [b"", CHUNKED, OTHER * 100], ids=["nothing", "all", "other"])
@each_case("end", ["complete", "undo", "close"])
def test_a_client_that_has_left_is_the_servers_to_find_when_it_gets_its_own_back(
    connect: Connect, written: bytes, leave: str, end: str
):
    with connect() as connection:

        def give(fd: int, head: Head) -> None:
            raise RuntimeError

        assert connection.takeover.begin()
        if written:
            connection.server.send(written)
        getattr(connection.client if leave == "close" else connection, leave)()
        if end == "complete":
            assert not connection.takeover.complete(give)
        else:
            getattr(connection.takeover, end)()
        connection.server.settimeout(TIMEOUT)
        with contextlib.suppress(ConnectionError):
            assert not connection.server.recv(1)


# What there is no room for.


@pytest.mark.slow
def test_a_server_is_not_stuck_with_a_head_that_no_client_would_take(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_STUCK", 1)
    head = HEAD + b"X: " + bytes(range(65, 91)) * 160_000
    assert connection.takeover.begin()
    if connection.server.gettimeout():
        connection.server.settimeout(1)
    with contextlib.suppress(BlockingIOError, TimeoutError):
        for at in range(0, len(head), 10_000):
            piece = head[at : at + 10_000]
            if connection.server.send(piece) < len(piece):
                break
        else:
            pytest.fail("4 MB fit into it")
    got: list[bytes] = []

    def read() -> None:
        while piece := connection.client.recv(65536):
            got.append(piece)

    reading = threading.Thread(target=read)
    reading.start()
    connection.takeover.undo()
    connection.server.shutdown(socket.SHUT_WR)
    reading.join(TIMEOUT)
    assert not reading.is_alive()
    assert sum(map(len, got)) >= 10_000
    assert head.startswith(b"".join(got))


@pytest.mark.parametrize("end", [b"", b"and more"], ids=["taken over", "given back"])
def test_a_head_that_is_larger_than_what_the_kernel_keeps_is_fetched_meanwhile(connection: Connection, end: bytes):
    head = HEAD + b"X: " + bytes(range(65, 91)) * 80_000 + b"\r\n"
    written, done, got = head + b"\r\n:ok\n" + end, threading.Event(), list[bytes]()

    def write() -> None:
        sent = 0
        while sent < len(written):
            with contextlib.suppress(BlockingIOError):
                sent += connection.server.send(written[sent : sent + 100_000])
        done.set()

    def read() -> None:
        while sum(map(len, got)) < len(written):
            got.append(connection.client.recv(65536))

    assert connection.takeover.begin()
    threading.Thread(target=write, daemon=True).start()
    deadline = time.monotonic() + TIMEOUT
    while not done.wait(0.01):
        assert time.monotonic() < deadline
        connection.takeover.tick(0)
    reading = threading.Thread(target=read, daemon=True)
    if end:
        reading.start()
    assert connection.takeover.complete(connection.give) is not bool(end)
    if end:
        reading.join(TIMEOUT)
        assert b"".join(got) == written
        connection.both_ways()
    else:
        assert connection.given[0][1].wire == head + b"Connection: close\r\n\r\n:ok\n"


def test_a_response_that_is_abandoned_after_its_opening_closes_the_connection(
    connection: Connection, caplog: pytest.LogCaptureFixture
):
    """A view, say, that does so itself and then fails."""
    assert connection.takeover.begin()
    connection.server.send(b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\n\r\n")
    connection.takeover.tick(time.monotonic() + 10)
    assert not caplog.records
    assert connection.client_gets_nothing()
    for later in (40, 50):
        connection.takeover.tick(time.monotonic() + later)
    assert connection.client.recv(100) == b""
    [record] = caplog.records
    assert "is closed" in record.getMessage()
    connection.takeover.close()


@pytest.mark.slow
def test_a_read_of_a_request_from_the_dummy_does_not_block(connection: Connection, monkeypatch: pytest.MonkeyPatch):
    """A view, say, that takes the stream's first chunk by itself before it reads the request's body."""
    monkeypatch.setattr(module, "_STUCK", 1)
    assert connection.takeover.begin()
    if connection.server.gettimeout():
        connection.server.settimeout(1)
    results: list[object] = []

    def read() -> None:
        try:
            results.append(connection.server.recv(100))
        except OSError as error:
            results.append(error)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(TIMEOUT)
    is_stuck = reading.is_alive()
    connection.takeover.close()
    reading.join(TIMEOUT)
    assert not is_stuck
    assert isinstance(results[0], (BlockingIOError, TimeoutError))
    connection.server.settimeout(TIMEOUT)
    connection.both_ways()


@pytest.mark.slow
def test_of_a_head_without_an_end_no_more_is_fetched_than_a_server_may_write(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "LONGEST_HEAD", 100_000)
    monkeypatch.setattr(module, "_STUCK", 1)
    assert connection.takeover.begin()
    connection.server.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 16_000_000:
            sent += connection.server.send(b"x" * 50_000)
            connection.takeover.tick(0)
    assert 100_000 <= sent < 16_000_000


@pytest.mark.slow
def test_a_client_that_takes_nothing_does_not_keep_the_server(connection: Connection, monkeypatch: pytest.MonkeyPatch):
    timeout = connection.server.gettimeout()
    connection.server.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += connection.server.send(b"x" * 65536)
    connection.server.settimeout(timeout)
    monkeypatch.setattr(module, "_STUCK", 1)
    assert connection.takeover.begin()
    connection.server.send(OTHER)
    assert not connection.takeover.complete(connection.give)
    # The server goes on, if the client could take what there was; else the connection is cut, so that nothing comes
    # behind a gap.
    connection.server.settimeout(1)
    with contextlib.suppress(OSError):
        connection.server.send(b"later")
    with contextlib.suppress(OSError):
        connection.server.shutdown(socket.SHUT_WR)
    assert set(connection.read(sent)) == set(b"x")
    rest = b""
    while piece := connection.client.recv(65536):
        rest += piece
    assert (OTHER + b"later").startswith(rest)


def test_the_reason_why_a_connection_stays_served_quotes_no_written_bytes(connection: Connection):
    assert connection.takeover.begin()
    connection.server.send(HEAD + b"Set-Cookie: session=secret\r\n\r\nsecret")
    assert not connection.takeover.complete(connection.give)
    assert "secret" not in connection.takeover.why


def test_a_descriptor_that_is_someone_elses_by_now_is_left_alone(connection: Connection):
    """Of an answer that is closed late, by the garbage collector say."""
    number = connection.server.fileno()
    assert connection.takeover.begin()
    connection.server.send(CHUNKED[:30])
    connection.server.close()
    other, far = socket.socketpair()
    with other, far:
        assert other.fileno() == number, "this takes the lowest number that is free"
        connection.takeover.close()
        other.send(b"for another")
        far.settimeout(TIMEOUT)
        assert far.recv(100) == b"for another"
    assert connection.read(30) == CHUNKED[:30]
    assert connection.client.recv(1) == b""


def test_a_descriptor_that_is_someone_elses_before_it_begins_is_left_alone(connection: Connection):
    """Of an answer that some middleware goes through on a thread of its own, when the request is long over."""
    number = connection.server.fileno()
    other, far = socket.socketpair()
    with far:
        with other:
            connection.server.close()
            assert not connection.takeover.begin()
            os.dup2(other.fileno(), number, inheritable=False)
        assert not connection.takeover.begin()
        assert connection.takeover.why
        os.write(number, b"for another")
        far.settimeout(TIMEOUT)
        assert far.recv(100) == b"for another"
        connection.takeover.close()
        os.write(number, b"and again")
        assert far.recv(100) == b"and again"
        os.close(number)


def test_an_answer_that_is_closed_after_its_connection_changes_no_descriptor(connection: Connection):
    assert connection.takeover.begin()
    connection.server.send(CHUNKED[:30])
    connection.server.close()
    connection.takeover.close()
    assert connection.read(30) == CHUNKED[:30]
    assert connection.client.recv(1) == b""


def test_a_worker_that_is_ended_while_it_begins_does_not_hang(connection: Connection, monkeypatch: pytest.MonkeyPatch):
    """As gunicorn does it after a timeout: by SystemExit, wherever the thread is."""

    class Interrupted(socket.socket):
        def __enter__(self) -> NoReturn:
            raise SystemExit

    def pair() -> tuple[socket.socket, socket.socket]:
        ours, dummy = make_pair()
        made.extend((ours, Interrupted(fileno=dummy.detach())))
        return made[0], made[1]

    made: list[socket.socket] = []
    make_pair = socket.socketpair
    monkeypatch.setattr(socket, "socketpair", pair)
    with pytest.raises(SystemExit):
        connection.takeover.begin()
    monkeypatch.undo()
    closing = threading.Thread(target=connection.takeover.close, daemon=True)
    closing.start()
    closing.join(TIMEOUT)
    is_stuck = closing.is_alive()
    for each in made:
        each.close()
    assert not is_stuck
    connection.both_ways()


@pytest.mark.parametrize(
    ("more", "open_files"), [(0, ""), (1, ""), (2, "0")], ids=["no pair", "no other end", "none above"]
)
def test_without_descriptors_nothing_has_happened(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, more: int, open_files: str
):
    """The client's own gets a number beyond the soft limit, where it may; the pair does not."""
    monkeypatch.setenv("SSESYNC_OPEN_FILES", open_files)
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest that is free is the next that is taken; those that are open may stay.
    lowest = os.dup(0)
    os.close(lowest)
    free = [lowest + each for each in range(3) if not is_open(lowest + each)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[0] + more if more < len(free) else free[-1], hard))
    try:
        assert not connection.takeover.begin()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no descriptors" in connection.takeover.why
    assert not descriptors() - before
    connection.both_ways()
    connection.takeover.close()
    connection.both_ways()


def is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


# socket.setdefaulttimeout()


@pytest.mark.parametrize("back", [True, False])
def test_a_default_timeout_makes_no_server_block_or_not(connection: Connection, back: bool):
    blocks = os.get_blocking(connection.server.fileno())
    socket.setdefaulttimeout(3)
    try:
        assert connection.takeover.begin()
        assert os.get_blocking(connection.server.fileno()) is blocks
        connection.server.send(OTHER if back else CHUNKED)
        assert connection.takeover.complete(connection.give) is not back
        assert os.get_blocking(connection.server.fileno()) is blocks
        if not back:
            assert not os.get_blocking(connection.given[0][0])
        connection.takeover.close()
    finally:
        socket.setdefaulttimeout(None)


# Whose connection it is.


@pytest.fixture
def server() -> Iterator[socket.socket]:
    client, server = tcp_pair()
    with client, server:
        yield server


def environ_of(kind: str, server: socket.socket) -> dict[str, Any]:
    if kind == "gunicorn":
        return {"gunicorn.socket": server, "SERVER_SOFTWARE": "gunicorn/24"}
    if kind == "werkzeug":
        return {"werkzeug.socket": server, "SERVER_SOFTWARE": "Werkzeug/3"}
    if kind == "runserver":
        return {"wsgi.input": SimpleNamespace(_read=server.makefile("rb").read), "SERVER_SOFTWARE": "WSGIServer/0.2"}
    if kind == "wsgiref":
        return {"wsgi.input": server.makefile("rb"), "SERVER_SOFTWARE": "WSGIServer/0.2"}
    if kind == "cheroot":
        return {"wsgi.input": SimpleNamespace(rfile=server.makefile("rb")), "SERVER_SOFTWARE": "Cheroot/10"}
    assert kind == "uwsgi"
    return {"uwsgi.version": b"2"}


@pytest.fixture(autouse=True)
def a_uwsgi(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(connection_fd=server.fileno))


@pytest.mark.parametrize("kind", ["gunicorn", "werkzeug", "runserver"])
def test_these_servers_connections_are_taken_over_unless_it_is_unwanted(kind: str, server: socket.socket):
    environ = environ_of(kind, server)
    assert takeover_of(environ, Settings(), OPENING) is not None
    assert takeover_of(environ, Settings(detach=True), OPENING) is not None
    assert takeover_of(environ, Settings(detach=False), OPENING) is None


@pytest.mark.parametrize("kind", ["wsgiref", "cheroot", "uwsgi"])
def test_these_servers_connections_are_taken_over_only_if_it_is_wanted(kind: str, server: socket.socket):
    environ = environ_of(kind, server)
    assert takeover_of(environ, Settings(), OPENING) is None
    assert takeover_of(environ, Settings(detach=True), OPENING) is not None
    assert takeover_of(environ, Settings(detach=False), OPENING) is None


def test_an_opening_that_might_not_fit_into_a_socket_pair_stays_with_the_server(server: socket.socket):
    environ = environ_of("gunicorn", server)
    assert takeover_of(environ, Settings(), b":" * 4096) is not None
    assert takeover_of(environ, Settings(), b":" * 4097) is None


@pytest.mark.parametrize("kind", ["gunicorn", "werkzeug"])
def test_tls_stays_with_the_server(kind: str, server: socket.socket):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with context.wrap_socket(server, do_handshake_on_connect=False, server_hostname="localhost") as wrapped:
        assert takeover_of(environ_of(kind, wrapped), Settings(detach=True), OPENING) is None


@pytest.mark.parametrize(
    "other",
    [
        {"HTTP_VERSION": "2"},
        {"SERVER_SOFTWARE": "other/1", "gunicorn.socket": None},
        {"wsgi.multiprocess": True},
        {"werkzeug.socket": io.BytesIO()},
    ],
)
def test_what_is_not_known_stays_with_the_server(other: dict[str, Any], server: socket.socket):
    assert takeover_of({**environ_of("werkzeug", server), **other}, Settings(detach=True), OPENING) is None


def test_a_request_without_a_connection_has_none_to_take_over(tmp_path: Path):
    with (tmp_path / "body").open("wb+") as file:
        environ = {"wsgi.input": file, "SERVER_SOFTWARE": "WSGIServer/0.2"}
        assert takeover_of(environ, Settings(detach=True), OPENING) is None
    assert takeover_of({}, Settings(detach=True), OPENING) is None


def test_whether_to_detach_is_true_false_or_auto_and_nothing_that_equals_them():
    """1 would not be True here, but "auto"."""
    for value in (0, 1, "yes", None):
        with pytest.raises(SettingsError, match="detach takes"):
            Settings(detach=value)  # type: ignore[arg-type]


def test_a_gunicorn_worker_without_force_close_keeps_its_connection(server: socket.socket):
    """It may have read another request, and would run it."""
    before = descriptors()
    takeover = SocketTakeover(ClientSocket(server.fileno(), "gunicorn"), OPENING)
    assert not takeover.begin()
    assert "further requests" in takeover.why
    takeover.close()
    assert descriptors() == before


def test_gunicorns_response_is_found_through_any_iterator_over_the_answer(server: socket.socket):
    from gunicorn.http.wsgi import Response

    request = SimpleNamespace(should_close=lambda: False, version=(1, 1), method="GET")
    response = Response(request, server, None)
    client = ClientSocket(server.fileno(), "gunicorn")
    takeover = SocketTakeover(client, OPENING)

    def handle_request(resp: object, takeover: SocketTakeover) -> bool:
        """Named as the worker's method, with its variable."""
        steps = (takeover.begin() for _ in range(1))
        for _ in range(20):
            steps = (step for step in steps)
        return next(map(bool, steps))

    assert not handle_request(SimpleNamespace(force_close=None), SocketTakeover(client, OPENING))
    assert handle_request(response, takeover)
    assert not response.must_close, "before it is known whether the connection can be taken over"
    server.send(CHUNKED)
    given: list[int] = []
    try:
        assert takeover.complete(lambda fd, head: given.append(fd))
        assert response.must_close
    finally:
        takeover.close()
        for fd in given:
            os.close(fd)
