"""A guard over one stream: lifetime, stalling, and that it touches no descriptor after the end."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync import CloseReason, Settings
from ssesync.reactor import reactor
from ssesync.server.liveness import Liveness, lifetime_of

from ..core.test_reactor import make_tcp, pass_through

TIMEOUT = 90.0


class Stream:
    """What a guard knows of a stream."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, CloseReason]] = []
        self.reason: CloseReason | None = None
        self.called = threading.Event()

    def cancel(self, reason: CloseReason) -> None:
        self.calls.append(("cancel", reason))

    def stop(self, reason: CloseReason) -> None:
        self.calls.append(("stop", reason))
        self.called.set()


def ticks_pass(count: int) -> None:
    """Wait for ticks of the reactor, after all that are in progress."""
    seen: list[None] = []
    enough = threading.Event()

    def tick() -> bool:
        seen.append(None)
        if len(seen) > count:
            enough.set()
        return len(seen) <= count

    reactor().every_tick(tick)
    assert enough.wait(TIMEOUT)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = make_tcp()
    with ours, theirs:
        yield ours, theirs


def guard(stream: Any, sock: socket.socket | None, **options: Any) -> Liveness:
    environ = {} if sock is None else {"gunicorn.socket": sock}
    return Liveness(stream, environ, Settings(**options))


def test_a_client_that_leaves_cancels_the_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    watching = guard(stream, pair[0])
    assert watching.senses
    pair[1].close()
    pass_through()
    assert stream.calls == [("cancel", "client_gone")]
    watching.end()


def test_after_the_end_a_client_that_leaves_is_nothing_to_it(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    watching = guard(stream, pair[0])
    watching.end()
    watching.end()
    pair[1].close()
    pass_through()
    assert stream.calls == []
    assert pair[0].fileno() not in reactor()._watched


def test_without_a_socket_or_without_leave_it_does_not_sense(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    assert not guard(stream, None).senses
    blind = guard(stream, pair[0], sense_disconnect=False)
    assert not blind.senses
    pair[1].close()
    pass_through()
    blind.end()
    assert stream.calls == []


def test_the_kernels_timeout_for_a_lost_peer_is_longer_than_send_timeout(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    guard(Stream(), pair[0], send_timeout=5).end()
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_a_send_that_takes_too_long_cuts_the_client_off(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    watching = guard(stream, pair[0], send_timeout=5, sense_disconnect=False)
    watching.sending(100.0)
    watching.tick(105.0)
    assert stream.calls == []
    watching.tick(105.1)
    assert stream.calls == [("cancel", "stalled")]
    assert pair[1].recv(1) == b""
    watching.end()


def test_a_send_that_is_done_is_not_counted_any_more(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    watching = guard(stream, pair[0], send_timeout=5)
    watching.sending(100.0)
    watching.sent()
    watching.tick(1000.0)
    watching.sending(1000.0)
    watching.tick(1004.0)
    assert stream.calls == []
    watching.end()


@pytest.mark.parametrize("options", [{"send_timeout": None}, {"send_timeout": 5}])
def test_without_a_timeout_or_a_socket_nobody_is_stalled(options: dict[str, Any]) -> None:
    stream = Stream()
    watching = guard(stream, None, **options)
    watching.sending(0.0)
    watching.tick(1e6)
    assert stream.calls == []


def test_after_the_end_nobody_is_cut_off(pair: tuple[socket.socket, socket.socket]) -> None:
    """The descriptor may be another connection's by then."""
    stream = Stream()
    watching = guard(stream, pair[0], send_timeout=5)
    watching.sending(100.0)
    watching.end()
    watching.tick(1000.0)
    assert stream.calls == []
    pair[0].sendall(b"x")
    assert pair[1].recv(1) == b"x"


@pytest.mark.slow
def test_lifetime_stops_the_stream_once() -> None:
    stream, other = Stream(), Stream()
    watching = guard(stream, None, max_lifetime=0.01)
    guard(other, None, max_lifetime=100)
    assert stream.called.wait(TIMEOUT)
    ticks_pass(2)
    assert stream.calls == [("stop", "lifetime")]
    assert other.calls == []
    watching.end()


@pytest.mark.slow
def test_after_the_end_no_lifetime_is_over() -> None:
    stream = Stream()
    watching = guard(stream, None, max_lifetime=0.01)
    watching.end()
    ticks_pass(2)
    assert stream.calls == []


def test_lifetimes_differ_by_a_tenth_so_that_clients_do_not_come_back_together() -> None:
    lifetimes = {lifetime_of(Settings(max_lifetime=100)) for _ in range(20)}
    assert len(lifetimes) > 10
    assert all(seconds is not None and 90 <= seconds <= 110 for seconds in lifetimes)
    assert lifetime_of(Settings(max_lifetime=None)) is None


def test_it_keeps_no_stream_alive(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    watching = guard(stream, pair[0])
    gone = weakref.ref(stream)
    del stream
    gc.collect()
    assert gone() is None
    pair[1].close()
    pass_through()
    watching.tick(1e9)
    watching.end()


def test_a_subscriber_that_was_given_up_is_cut_off_while_the_server_still_sends_to_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = Stream()
    watching = guard(stream, pair[0], send_timeout=None)
    watching.sending(time.monotonic())
    watching.tick(time.monotonic())
    assert stream.calls == []
    stream.reason = CloseReason.OVERFLOW
    watching.tick(time.monotonic())
    assert pair[1].recv(1) == b""
    watching.end()
