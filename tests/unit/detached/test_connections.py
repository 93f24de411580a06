"""Detached connections: clients over real sockets, with each poller that the standard library has."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import pytest

from ssesync import CloseReason, Settings, StreamStats
from ssesync.detached import connections as connections_module
from ssesync.detached.broadcast import BroadcastGroup
from ssesync.detached.connection import Connection, Handover
from ssesync.detached.connections import Connections
from ssesync.detached.sending import make_send, plain_send
from ssesync.detached.source import Position, Subscriber
from ssesync.detached.state import State
from ssesync.executor import callers
from ssesync.pollers import EpollPoller, Poller, Ready, SelectorPoller
from ssesync.reactor import Reactor, Timer
from ssesync.wire.encoder import KEEP_ALIVE

TIMEOUT = 90.0
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

POLLERS: dict[str, Callable[[], Poller]] = {
    "select": lambda: SelectorPoller(selectors.SelectSelector()),
    "poll": lambda: SelectorPoller(selectors.PollSelector()),
    "best": lambda: SelectorPoller(),
}
if hasattr(select, "epoll"):
    POLLERS["epoll"] = EpollPoller


class Note:
    """Keeps account as a process does."""

    def __init__(self) -> None:
        self.reasons: list[CloseReason] = []
        self.stats: StreamStats | None = None
        self._ended = threading.Event()
        self.key = ""
        self.is_bound, self.is_movable = False, True

    def began(self, connection: Connection) -> None:
        pass

    def ended(self, connection: Connection, reason: CloseReason, stats: StreamStats) -> None:
        self.reasons.append(reason)
        self.stats = stats
        self._ended.set()

    @property
    def reason(self) -> CloseReason:
        assert self._ended.wait(TIMEOUT), "the stream did not end"
        return self.reasons[-1]


class Nothing:
    """A source without a log: what a client could not take is all that it has missed."""

    def __init__(self) -> None:
        self.gone: list[Connection] = []

    def subscriber_for(self, connection: Connection, position: Position, *, from_log: bool) -> Subscriber:
        raise NotImplementedError

    def left(self, connection: Connection) -> None:
        self.gone.append(connection)

    def tick(self) -> None:
        pass


class Plain(BroadcastGroup):
    def __init__(self, connections: Connections, keep_alive: float | None = None) -> None:
        self.source = Nothing()
        super().__init__(connections, keep_alive, self.source)
        self.connections = connections


class Client:
    """One end of a connection whose other end the reactor has."""

    opened: ClassVar[list[socket.socket]] = []

    def __init__(
        self, group: Plain, *, chunked: bool = True, tcp: bool = False, orderly: bool = True, **options: object
    ) -> None:
        self.socket, other = tcp_pair() if tcp else socket.socketpair()
        self.opened.append(self.socket)
        self.socket.settimeout(TIMEOUT)
        other.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        settings = Settings().replace(**options)
        handover = Handover(other.detach(), chunked, HEAD, "test", settings, time.monotonic(), 0, orderly)
        self.note = Note()
        self.connection = Connection(group.connections, handover, group, self.note, None)

        def admit() -> None:
            group.connections.register(self.connection, handover.head)
            group.place(self.connection, group.position)

        group.connections.call_soon(admit)
        assert self.read(len(HEAD)) == HEAD

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, f"the connection ended after {data!r}"
            data += piece
        return data

    def rest(self) -> bytes:
        data = b""
        while piece := self.socket.recv(65536):
            data += piece
        return data

    def is_reset(self) -> bool:
        try:
            self.rest()
        except ConnectionResetError:
            return True
        return False


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


@pytest.fixture(autouse=True)
def clients_are_closed() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


@pytest.fixture(params=POLLERS)
def connections(request: pytest.FixtureRequest) -> Iterator[Connections]:
    with running(POLLERS[request.param]()) as connections:
        yield connections


@contextlib.contextmanager
def running(poller: Poller | None = None) -> Iterator[Connections]:
    reactor = Reactor(poller)
    connections = Connections(reactor)
    reactor.on_failure.append(connections.abort_all)

    def run() -> None:
        with contextlib.suppress(SystemExit):
            reactor._run()

    def leave() -> None:
        raise SystemExit

    # As start() does it, but for a thread that ends: else it would be there for all tests that come.
    thread = threading.Thread(target=run, name="ssesync-reactor", daemon=True)
    thread.start()
    yield connections
    connections.drain()
    assert not len(connections)
    connections.call_soon(leave)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    connections.release()
    reactor.close()


def on(connections: Connections, call: Callable[[], object]) -> None:
    """Call on the reactor's thread, and wait for it."""
    done = threading.Event()
    connections.call_soon(call)
    connections.call_soon(done.set)
    assert done.wait(TIMEOUT)


def give(group: Plain, data: bytes, events: int = 1) -> None:
    on(group.connections, lambda: group.give(group._in_sync, data, events))


def test_all_in_a_group_get_the_same_in_their_own_framing(connections: Connections):
    group = Plain(connections)
    chunked, raw = Client(group), Client(group, chunked=False)
    give(group, b"data: x\n\n")
    assert chunked.read(14) == b"9\r\ndata: x\n\n\r\n"
    assert raw.read(9) == b"data: x\n\n"


def test_a_client_that_leaves_is_seen_and_the_others_stay(connections: Connections):
    group = Plain(connections)
    one, other = Client(group), Client(group)
    one.socket.close()
    assert one.note.reason is CloseReason.CLIENT_GONE
    give(group, b"x")
    assert other.read(6) == b"1\r\nx\r\n"
    assert group.source.gone == [one.connection]


def test_a_client_that_resets_is_seen(connections: Connections):
    client = Client(Plain(connections), tcp=True)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    assert client.note.reason is CloseReason.CLIENT_GONE


def test_a_client_that_only_stops_sending_counts_as_gone(connections: Connections):
    client = Client(Plain(connections), tcp=True)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.note.reason is CloseReason.CLIENT_GONE


def test_a_client_may_stop_sending_where_the_setting_says_so(connections: Connections):
    group = Plain(connections)
    client = Client(group, tcp=True, half_close_is_gone=False)
    client.socket.shutdown(socket.SHUT_WR)
    for number in range(3):
        give(group, b"%d" % number)
        assert client.read(6) == b"1\r\n%d\r\n" % number
    # It stalls and goes on, and both are seen.
    give(group, b"y" * 500_000)
    assert client.read(500_009).count(b"y") == 500_000
    client.socket.close()
    give(group, b"x" * 500_000)
    assert client.note.reason is CloseReason.CLIENT_GONE


def test_what_a_client_sends_is_ignored_and_its_end_is_clean_all_the_same(connections: Connections):
    group = Plain(connections)
    client = Client(group, tcp=True)
    client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    give(group, b"x")
    client.connection.stop(last=b"data: bye\n\n")
    data = client.rest()
    assert data.startswith(b"1\r\nx\r\n")
    assert data.endswith(b"\r\n0\r\n\r\n")
    assert b"data: bye\n\nretry: " in data
    assert client.note.reason is CloseReason.SHUTDOWN


def test_a_stop_sends_what_waits_then_the_trailer_once(connections: Connections):
    group = Plain(connections)
    client = Client(group)
    give(group, b"y" * 300_000)
    client.connection.stop(CloseReason.LIFETIME, b"data: bye\n\n")
    client.connection.stop(CloseReason.SHUTDOWN)
    data = client.rest()
    assert data.startswith(b"493e0\r\n" + b"y" * 300_000 + b"\r\n")
    assert data.count(b"bye") == data.count(b"retry: ") == 1
    assert data.endswith(b"\r\n0\r\n\r\n")
    assert data.count(b"0\r\n\r\n") == 1
    assert client.note.reason is CloseReason.LIFETIME
    on(connections, lambda: None)
    assert len(client.note.reasons) == 1


def test_a_cancel_ends_at_once_with_the_last_chunk_between_two_events(connections: Connections):
    group = Plain(connections)
    client = Client(group)
    client.connection.cancel(CloseReason.REVOKED)
    client.connection.cancel()
    assert client.rest() == b"0\r\n\r\n"
    assert client.note.reason is CloseReason.REVOKED
    on(connections, lambda: None)
    assert len(client.note.reasons) == 1
    assert client.connection.closed


def test_a_cancel_in_the_middle_of_an_event_is_no_clean_end(connections: Connections):
    group = Plain(connections)
    client = Client(group, chunked=False, tcp=True)
    give(group, b"y" * 20_000_000)
    client.connection.cancel()
    assert client.note.reason is CloseReason.CANCELLED
    assert client.is_reset()


@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut_off_and_one_that_reads_slowly_is_not(connections: Connections):
    group = Plain(connections)
    stalled, slow = Client(group, send_timeout=2.0), Client(group, send_timeout=2.0)
    give(group, b"y" * 3_000_000)
    read = 0
    while not stalled.note.reasons:
        read += len(slow.socket.recv(65536))
        time.sleep(0.02)
    assert stalled.note.reason is CloseReason.STALLED
    assert not slow.note.reasons
    slow.read(3_000_000 + len(b"2dc6c0\r\n\r\n") - read)


def test_statistics_count_what_all_got_and_what_one_got_by_itself(connections: Connections):
    group = Plain(connections)
    early = Client(group)
    give(group, b"12345", 2)
    late = Client(group)
    give(group, b"678", 1)
    on(connections, lambda: late.connection.give(b"9", 1))
    assert (early.connection.stats.events, early.connection.stats.bytes) == (3, 8)
    assert (late.connection.stats.events, late.connection.stats.bytes) == (2, 4)
    late.connection.cancel()
    assert late.note.reason is CloseReason.CANCELLED
    give(group, b"more", 1)
    assert late.note.stats is not None
    assert (late.note.stats.events, late.note.stats.bytes) == (2, 4)
    assert (late.connection.stats.events, late.connection.stats.bytes) == (2, 4)
    description = early.connection.describe()
    assert description["tier"] == "detached"
    assert description["events"] == 4


@pytest.mark.slow
def test_silence_is_filled_for_all_at_once(connections: Connections):
    group = Plain(connections, keep_alive=0.01)
    clients = [Client(group) for _ in range(5)]
    for client in clients:
        assert client.read(len(KEEP_ALIVE) + 5) == b"%x\r\n%b\r\n" % (len(KEEP_ALIVE), KEEP_ALIVE)
    assert group.totals.keep_alives >= 1
    assert clients[0].connection.stats.keep_alives >= 1


@pytest.mark.slow
def test_a_stream_ends_cleanly_when_it_has_lived_long_enough(connections: Connections):
    client = Client(Plain(connections), max_lifetime=0.01)
    data = client.rest()
    assert b"retry: " in data
    assert data.endswith(b"0\r\n\r\n")
    assert client.note.reason is CloseReason.LIFETIME


def test_a_request_that_comes_before_the_connection_is_registered_is_served_when_it_is(connections: Connections):
    """A revocation or a drain may come between the server's thread and the reactor's."""
    for ask, last in (("cancel", b""), ("stop", b"retry: ")):
        ours, theirs = socket.socketpair()
        Client.opened.append(ours)
        ours.settimeout(TIMEOUT)
        theirs.setblocking(False)
        note, group = Note(), Plain(connections)
        handover = Handover(theirs.detach(), True, HEAD, "test", Settings(), time.monotonic(), 0)
        connection = Connection(connections, handover, group, note, None)
        getattr(connection, ask)(CloseReason.REVOKED)
        connection.stop(CloseReason.LIFETIME)
        on(connections, lambda connection=connection: connections.register(connection, HEAD))  # type: ignore[misc]
        data = b""
        while piece := ours.recv(4096):
            data += piece
        assert data.startswith(HEAD)
        assert last in data
        assert data.endswith(b"0\r\n\r\n")
        assert data.count(b"0\r\n\r\n") == 1
        assert note.reason is CloseReason.REVOKED


def test_calls_are_made_in_the_order_of_their_requests(connections: Connections):
    calls: list[int] = []
    threads = []
    for number in range(4):

        def ask(number: int = number) -> None:
            for step in range(500):
                connections.call_soon(lambda step=step: calls.append(number * 1000 + step))  # type: ignore[misc]

        threads.append(threading.Thread(target=ask))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    on(connections, lambda: None)
    for number in range(4):
        assert [call for call in calls if call // 1000 == number] == [number * 1000 + step for step in range(500)]


def test_a_call_that_fails_is_logged_and_the_reactor_goes_on(
    connections: Connections, caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise ZeroDivisionError

    on(connections, fail)
    client = Client(Plain(connections))
    give(client.connection.group, b"x")
    assert client.read(6) == b"1\r\nx\r\n"
    callers().wait(TIMEOUT)
    assert "a callback of the reactor failed" in caplog.text
    caplog.clear()


def test_a_drain_ends_all_clients_and_those_that_come_after_it(connections: Connections):
    group = Plain(connections)
    clients = [Client(group), Client(group, chunked=False)]
    connections.drain(b"data: bye\n\n")
    for client in [*clients, Client(group)]:
        assert b"data: bye\n\nretry: " in client.rest()
        assert client.note.reason is CloseReason.SHUTDOWN


def test_a_forked_child_closes_the_connections_of_its_parent():
    """Else a client would see no end for as long as the child lives."""
    current = connections_module.connections()
    client = Client(Plain(current), chunked=False, tcp=True)
    fd = client.connection.fd
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            try:
                os.fstat(fd)
            except OSError:
                os._exit(connections_module.connections_if_any() is not None)
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    client.connection.cancel()
    assert client.rest() == b""
    assert connections_module.connections() is current


@pytest.mark.slow
def test_a_process_that_exits_ends_its_streams():
    """Whatever ends it, as long as Python gets to run its exit functions."""
    ours, theirs = tcp_pair()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            ours.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            script = (
                "import sys, time; from ssesync import Settings; from ssesync.detached.connections import connections\n"
                "from ssesync.detached.connection import *; from ssesync.detached.broadcast import *\n"
                "class Quiet:\n"
                "    began = ended = left = lambda *args: None\n"
                "    tick = lambda self: None\n"
                "it = connections()\n"
                "one = Handover(int(sys.argv[1]), True, b'', '', Settings(), 0.0, 0)\n"
                "one = Connection(it, one, BroadcastGroup(it, None, Quiet()), Quiet(), None)\n"
                "it.call_soon(lambda: it.register(one, b'head'))\n"
            )  # fmt: skip
            os.set_inheritable(theirs.fileno(), True)
            os.execv(sys.executable, [sys.executable, "-c", script, str(theirs.fileno())])
        os._exit(2)
    theirs.close()
    ours.settimeout(TIMEOUT)
    with ours:
        data = b""
        while piece := ours.recv(4096):
            data += piece
    assert data.startswith(b"head")
    assert b"retry: " in data
    assert data.endswith(b"0\r\n\r\n")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_client_that_can_not_be_watched_ends_and_the_others_continue(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    group = Plain(connections)
    stuck, other = Client(group), Client(group)

    def fail(fd: int, half_close: bool, wanted: bool) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(connections._reactor._poller, "set_writable", fail)
    on(connections, lambda: group.move(other.connection, State.DRAINING))
    give(group, b"y" * 3_000_000)
    assert stuck.note.reason is CloseReason.ERROR
    on(connections, lambda: group.place(other.connection, group.position))
    give(group, b"x")
    assert other.read(6) == b"1\r\nx\r\n"
    caplog.clear()


def test_a_client_that_can_not_be_watched_ends_before_its_head(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(fd: int, half_close: bool) -> None:
        raise OSError("no space")

    monkeypatch.setattr(connections._reactor._poller, "add", fail)
    ours, theirs = socket.socketpair()
    Client.opened.append(ours)
    ours.settimeout(TIMEOUT)
    note, group = Note(), Plain(connections)
    connection = Connection(
        connections, Handover(theirs.detach(), True, HEAD, "", Settings(), 0.0, 0), group, note, None
    )
    on(connections, lambda: connections.register(connection, HEAD))
    assert ours.recv(1) == b""
    assert note.reason is CloseReason.ERROR
    caplog.clear()


def test_lifetimes_of_clients_that_left_are_not_kept(connections: Connections):
    group = Plain(connections)
    for _ in range(100):
        client = Client(group, max_lifetime=1000)
        client.socket.close()
        assert client.note.reason is CloseReason.CLIENT_GONE
    on(connections, connections._reactor._timers._tick)
    assert not connections._lifetimes
    assert not connections._reactor._timers._heap
    kept: list[Timer] = []
    for _ in range(200):
        kept.append(connections._reactor.call_later(1, lambda: None))
        kept.append(connections._reactor.call_later(1000, lambda: None))
    for timer in kept[1::2]:
        timer.cancel()
    on(connections, connections._reactor._timers._tick)
    assert len(connections._reactor._timers._heap) <= 200


@pytest.mark.parametrize("send", [make_send(), plain_send], ids=["best", "plain"])
def test_sending_returns_how_much_was_taken_or_the_error(send: Callable[[int, bytes, int], int]):
    ours, theirs = tcp_pair()
    with ours, theirs:
        theirs.setblocking(False)
        assert send(theirs.fileno(), b"a\0b", 3) == 3
        assert ours.recv(10) == b"a\0b"
        sent = 0
        while (taken := send(theirs.fileno(), b"y" * 65536, 65536)) > 0:
            sent += taken
        assert taken == -11 or taken == -35
        received = 0
        while received < sent:
            received += len(ours.recv(65536))
    assert send(-1, b"x", 1) == -9


def test_a_default_timeout_for_sockets_makes_no_end_wait_for_its_client(connections: Connections):
    """As that of socket.setdefaulttimeout() does, for what a client would still say."""
    before = socket.getdefaulttimeout()
    first, second = (Client(Plain(connections)) for _ in range(2))
    socket.setdefaulttimeout(3 * TIMEOUT)
    try:
        first.connection.stop(CloseReason.REVOKED)
        on(connections, lambda: None)
        second.connection.cancel(CloseReason.REVOKED)
        on(connections, lambda: None)
    finally:
        socket.setdefaulttimeout(before)
    assert first.rest().endswith(b"0\r\n\r\n")
    assert second.rest() == b"0\r\n\r\n"


def test_a_log_that_fails_does_not_end_the_reactor(connections: Connections, caplog: pytest.LogCaptureFixture):
    def fail(record: logging.LogRecord) -> bool:
        raise ValueError("a filter that fails")

    client, log = Client(Plain(connections)), logging.getLogger("ssesync")
    log.addFilter(fail)
    try:
        on(connections, lambda: 1 / 0)
    finally:
        log.removeFilter(fail)
    client.connection.stop(CloseReason.REVOKED)
    assert client.rest().endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("poller", POLLERS)
def test_an_event_before_its_registration_does_not_end_a_connection(poller: str) -> None:
    """The event may be of the connection that had the descriptor's number before."""
    with running(POLLERS[poller]()) as connections:
        group, opened = Plain(connections), list[int]()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        handover = Handover(theirs.detach(), True, HEAD, "test", Settings(), time.monotonic(), 0)
        note = Note()
        connection = Connection(connections, handover, group, note, None)

        def arrive() -> None:
            connections.admit(connection, HEAD, lambda rest: connections.register(connection, rest))
            connections._reactor._dispatch(handover.fd, True, True)
            opened.append(len(connections))

        on(connections, arrive)
        on(connections, lambda: None)
        assert opened == [1]
        assert connection.state is State.OPENING
        assert note.reasons == []
        ours.close()
        assert note.reason is CloseReason.CLIENT_GONE


@pytest.mark.slow
def test_a_reactor_that_can_not_wait_ends_its_clients_and_those_that_come(caplog: pytest.LogCaptureFixture):
    class Broken(SelectorPoller):
        broken = False

        def add(self, fd: int, half_close: bool) -> None:
            if self.broken:
                raise OSError("a poller that fails")
            super().add(fd, half_close)

        def wait(self, timeout: float | None) -> Iterable[Ready]:
            if self.broken:
                raise MemoryError
            return super().wait(timeout)

    poller = Broken()
    with running(poller) as connections:
        group = Plain(connections)
        first, unread = Client(group), socket.socketpair()
        poller.broken = True
        on(connections, lambda: None)
        assert first.rest() == b"0\r\n\r\n"
        assert first.note.reason is CloseReason.ERROR
        with unread[0] as client:
            client.settimeout(TIMEOUT)
            unread[1].setblocking(False)
            handover = Handover(unread[1].detach(), True, HEAD, "test", Settings(), time.monotonic(), 0)
            second = Connection(connections, handover, group, Note(), None)
            connections.call_soon(lambda: connections.register(second, HEAD))
            assert client.recv(100) == b""
        poller.broken = False
    callers().wait(TIMEOUT)
    assert "can't wait" in caplog.text
    caplog.clear()


@pytest.mark.skipif("epoll" not in POLLERS, reason="other ways of waiting fail for all")
def test_a_client_whose_descriptor_other_code_has_closed_ends_like_any_other(caplog: pytest.LogCaptureFixture):
    with running(EpollPoller()) as connections:
        group = Plain(connections)
        lost, other = Client(group), Client(group)
        on(connections, lambda: os.close(lost.connection.fd))
        give(group, b"data: 1\n\n")
        assert lost.note.reason is CloseReason.CLIENT_GONE
        assert group.source.gone == [lost.connection]
        assert lost.connection.state is State.CLOSED
        assert other.read(14) == b"9\r\ndata: 1\n\n\r\n"
    caplog.clear()


def test_a_thread_that_was_ended_in_a_request_does_not_keep_the_process(connections: Connections):
    """By gunicorn's SystemExit, that is, when the reactor counts as awake and was not woken."""
    on(connections, lambda: None)
    deadline = time.monotonic() + TIMEOUT
    while connections._reactor._awake and time.monotonic() < deadline:
        time.sleep(0.001)
    connections._reactor._awake = True
    connections.drain()
    assert connections._empty.is_set()
