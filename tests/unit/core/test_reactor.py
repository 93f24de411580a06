"""The reactor: hang-ups, ticks, signals, forks; and the same where threads are greenlets."""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from ssesync.executor import callers
from ssesync.reactor import TICK, Timer, reactor, reactor_if_any

TIMEOUT = 90.0

Pair = tuple[socket.socket, socket.socket]


class Called:
    """A callback that can be waited for."""

    def __init__(self) -> None:
        self.times = 0
        self.thread = ""
        self._event = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        self.thread = threading.current_thread().name
        self._event.set()

    def within(self, seconds: float = TIMEOUT) -> bool:
        return self._event.wait(seconds)

    def method(self) -> None:
        """As a guard's: a new object each time that it is asked for."""
        self()


def pass_through() -> None:
    """Return when the reactor has done all that it had to do before, and so have the threads that call for it."""
    done = Called()
    ours, theirs = socket.socketpair()
    with ours:
        reactor().watch(ours.fileno(), done)
        theirs.close()
        assert done.within()
        reactor().unwatch(ours.fileno(), done)
    callers().wait(90)


def make_tcp() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


@pytest.fixture(params=[socket.socketpair, make_tcp], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    ours, theirs = request.param()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def tcp() -> Iterator[Pair]:
    ours, theirs = make_tcp()
    with ours, theirs:
        yield ours, theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("bytes_before", [b"", b"GET /"], ids=["", "behind bytes"])
@pytest.mark.parametrize("leave", [socket.socket.close, half_close])
def test_a_peer_that_closes_or_half_closes_is_noticed_once(
    pair: Pair, leave: Callable[[socket.socket], None], bytes_before: bytes
) -> None:
    ours, theirs = pair
    called = Called()
    assert reactor().watch(ours.fileno(), called)
    if bytes_before:
        theirs.sendall(bytes_before)
        pass_through()
        assert not called.times
    leave(theirs)
    assert called.within()
    assert called.thread == "ssesync-reactor"
    pass_through()
    assert called.times == 1
    reactor().unwatch(ours.fileno(), called)


@pytest.mark.parametrize("half", [True, False])
def test_a_peer_that_resets_is_noticed(tcp: Pair, half: bool) -> None:
    ours, theirs = tcp
    called = Called()
    reactor().watch(ours.fileno(), called, half_close=half)
    reset(theirs)
    assert called.within()


def test_a_half_close_can_be_left_out(tcp: Pair) -> None:
    ours, theirs = tcp
    called = Called()
    reactor().watch(ours.fileno(), called, half_close=False)
    theirs.sendall(b"GET /")
    half_close(theirs)
    pass_through()
    assert not called.times
    reset(theirs)
    assert called.within()


def test_a_peer_that_was_gone_before_is_noticed(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    called = Called()
    reactor().watch(ours.fileno(), called)
    assert called.within()


def test_what_is_forgotten_is_not_called(pair: Pair) -> None:
    ours, theirs = pair
    called = Called()
    reactor().watch(ours.fileno(), called)
    reactor().unwatch(ours.fileno(), called)
    theirs.close()
    pass_through()
    assert not called.times


def test_a_bound_method_is_removed_although_each_access_makes_another(pair: Pair) -> None:
    ours, theirs = pair
    called = Called()
    reactor().watch(ours.fileno(), called.method)
    reactor().unwatch(ours.fileno(), called.method)
    theirs.close()
    pass_through()
    assert not called.times


def test_to_forget_again_or_another_or_a_closed_descriptor_is_no_error(pair: Pair) -> None:
    ours, theirs = pair
    fd = ours.fileno()
    first, second = Called(), Called()
    reactor().watch(fd, first)
    reactor().unwatch(fd, second)
    theirs.close()
    assert first.within()
    ours.close()
    reactor().unwatch(fd, first)
    reactor().unwatch(fd, first)


def test_a_descriptor_that_is_closed_can_not_be_watched() -> None:
    with socket.socket() as sock:
        fd = sock.fileno()
    called = Called()
    assert not reactor().watch(fd, called)
    reactor().unwatch(fd, called)


def test_a_descriptors_next_connection_is_watched_for_itself(pair: Pair) -> None:
    """Even where a server closed it without telling."""
    ours, theirs = pair
    first, second = Called(), Called()
    reactor().watch(ours.fileno(), first)
    again, peer = socket.socketpair()
    with again, peer:
        os.dup2(again.fileno(), ours.fileno())
        assert reactor().watch(ours.fileno(), second)
        theirs.close()
        pass_through()
        assert not second.times
        peer.close()
        assert second.within()
        reactor().unwatch(ours.fileno(), second)
    assert first.times == 0


def test_the_next_stream_on_a_connection_takes_the_place_of_the_one_before(pair: Pair) -> None:
    ours, theirs = pair
    first, second = Called(), Called()
    reactor().watch(ours.fileno(), first)
    assert reactor().watch(ours.fileno(), second)
    reactor().unwatch(ours.fileno(), first)
    theirs.close()
    assert second.within()
    assert not first.times


def test_a_late_report_of_a_connection_is_not_taken_for_the_next_ones_on_its_descriptor(pair: Pair) -> None:
    """The reactor is told of a hang-up, and before it acts the descriptor is another connection's."""
    ours, _ = pair
    called = Called()
    reactor().watch(ours.fileno(), called)
    reactor()._hung_up(ours.fileno())
    assert not called.times
    reactor().unwatch(ours.fileno(), called)


def test_a_callback_that_fails_is_logged_and_the_others_are_called(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("in a callback")

    ours, theirs = pair
    reactor().watch(ours.fileno(), fail)
    theirs.close()
    pass_through()
    assert "in a callback" in caplog.text
    reactor().unwatch(ours.fileno(), fail)


def test_hundreds_of_watched_at_once_are_all_noticed() -> None:
    pairs = [socket.socketpair() for _ in range(300)]
    calls = [Called() for _ in pairs]
    for (ours, _), called in zip(pairs, calls, strict=True):
        reactor().watch(ours.fileno(), called)
    for _, theirs in pairs:
        theirs.close()
    for (ours, _), called in zip(pairs, calls, strict=True):
        assert called.within()
        reactor().unwatch(ours.fileno(), called)
        ours.close()
    assert {called.times for called in calls} == {1}


@pytest.mark.slow
def test_ticks_come_again_until_they_are_answered_false() -> None:
    answers = iter([True, True, False])
    done = threading.Event()

    def tick() -> bool:
        answer = next(answers)
        if not answer:
            done.set()
        return answer

    reactor().every_tick(tick)
    assert done.wait(TIMEOUT)
    assert next(answers, None) is None


@pytest.mark.slow
def test_a_tick_is_registered_once_and_called_while_it_returns_true() -> None:
    times = []
    enough = threading.Event()

    def tick() -> bool:
        times.append(1)
        if len(times) >= 2:
            enough.set()
        return len(times) < 2

    for _ in range(5):
        reactor().every_tick(tick)
    assert enough.wait(TIMEOUT)
    assert len(times) == 2


@pytest.mark.slow
def test_a_tick_that_fails_is_logged_and_does_not_come_again(caplog: pytest.LogCaptureFixture) -> None:
    times = []

    def tick() -> bool:
        times.append(1)
        raise RuntimeError("in a tick")

    after = Called()
    reactor().every_tick(tick)

    def later() -> bool:
        if not after.times:
            after()
            return True
        return False

    reactor().every_tick(later)
    assert after.within()
    threading.Event().wait(2 * TICK)
    assert len(times) == 1
    assert "in a tick" in caplog.text


def test_from_a_signal_handler_a_callback_runs_on_the_reactors_thread() -> None:
    called = Called()
    before = signal.signal(signal.SIGUSR1, lambda *_: reactor().call_from_signal(called))
    try:
        reactor()
        signal.raise_signal(signal.SIGUSR1)
        assert called.within()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert called.thread == "ssesync-reactor"


def test_there_is_one_in_a_process() -> None:
    assert reactor() is reactor() is reactor_if_any()
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("ssesync-reactor") == 1


@pytest.mark.slow
def test_what_is_forgotten_is_let_go(pair: Pair) -> None:
    called = Called()
    reactor().watch(pair[0].fileno(), called)
    reactor().unwatch(pair[0].fileno(), called)
    gc.collect()
    assert not [thing for thing in gc.get_referrers(called) if isinstance(thing, tuple) and thing[0] is called]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_forked_child_has_a_reactor_of_its_own_and_leaves_the_parents_alone() -> None:
    code = """
import os, socket, threading
from ssesync.reactor import reactor, reactor_if_any

def noticed(say):
    ours, theirs = socket.socketpair()
    called = threading.Event()
    reactor().watch(ours.fileno(), called.set)
    theirs.close()
    assert called.wait(90), say
    reactor().unwatch(ours.fileno(), called.set)

kept, peer = socket.socketpair()
parents = threading.Event()
reactor().watch(kept.fileno(), parents.set)
mine = reactor()
descriptors = len(os.listdir("/proc/self/fd"))
child = os.fork()
if not child:
    assert reactor_if_any() is None
    assert threading.active_count() == 1
    noticed("child")
    assert reactor() is not mine
    assert [thread.name for thread in threading.enumerate()].count("ssesync-reactor") == 1
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert reactor() is mine
noticed("parent")
peer.close()
assert parents.wait(90)
print("well")
"""
    assert run(code) == "well"


@pytest.mark.slow
def test_a_child_that_is_forked_before_there_is_one_makes_its_own() -> None:
    code = """
import os
from ssesync.reactor import reactor, reactor_if_any
child = os.fork()
if not child:
    reactor()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(reactor_if_any())
"""
    assert run(code) == "None"


@pytest.mark.slow
class Added:
    """A descriptor of the reactor's, which is to be added by a call that the reactor is not woken for."""

    def __init__(self, sock: socket.socket) -> None:
        self.fd = sock.fileno()
        self.added, self.gone = Called(), Called()

    def add(self) -> None:
        reactor().add(self.fd, self)
        self.added()

    def on_event(self, gone: bool, writable: bool) -> None:
        if self.added.within(0):  # else it is reported again
            reactor().remove(self.fd)
            self.gone()


def keep_ticking() -> Callable[[], None]:
    """Have the reactor tick, as it does while it has connections; what ends that."""
    ended = threading.Event()
    reactor().every_tick(lambda: not ended.is_set())
    return ended.set


@pytest.mark.slow
def test_a_call_to_add_is_made_by_the_next_tick(pair: Pair) -> None:
    end = keep_ticking()
    pass_through()
    added = Added(pair[0])
    reactor().call_to_add(added.fd, added, added.add)
    assert added.added.within()
    pair[1].close()
    assert added.gone.within()
    end()


@pytest.mark.slow
def test_a_reactor_that_does_not_tick_is_woken_for_a_call_to_add(pair: Pair) -> None:
    pass_through()
    added = Added(pair[0])
    reactor().call_to_add(added.fd, added, added.add)
    assert added.added.within()
    pair[1].close()
    assert added.gone.within()


def test_the_peer_of_a_descriptor_that_is_still_to_be_added_is_noticed(pair: Pair) -> None:
    end = keep_ticking()
    pass_through()
    added = Added(pair[0])
    reactor().call_to_add(added.fd, added, added.add)
    pair[1].close()
    assert added.added.within()
    assert added.gone.within()
    end()


def test_a_call_to_add_that_is_made_before_its_descriptor_is_prepared_is_no_error(pair: Pair) -> None:
    end = keep_ticking()
    pass_through()
    added = Added(pair[0])
    reactor()._poller.add(added.fd, True)  # as call_to_add() does behind the call
    reactor().call_soon(added.add)
    assert added.added.within()
    pair[1].close()
    assert added.gone.within()
    end()


@pytest.mark.slow
def test_under_gevent_a_greenlet_is_notified_and_the_hub_is_not_blocked() -> None:
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, os, socket, threading, time
from gevent.event import Event
from ssesync.reactor import reactor

# Whoever blocks the hub stops this clock.
clock = []
def run_clock():
    while True:
        clock.append(time.monotonic())
        gevent.sleep(0.01)
gevent.spawn(run_clock)

native = len(os.listdir("/proc/self/task"))
def check(leave, half_close, expected):
    ours, theirs = socket.socketpair()
    called = Event()
    assert reactor().watch(ours.fileno(), called.set, half_close=half_close)
    theirs.sendall(b"GET /")
    gevent.sleep(0.05)
    assert not called.is_set()
    leave(theirs)
    assert bool(called.wait(10 if expected else 0.2)) is expected
    reactor().unwatch(ours.fileno(), called.set)

check(socket.socket.close, True, True)
check(socket.socket.close, False, True)
check(lambda sock: sock.shutdown(socket.SHUT_WR), True, True)
check(lambda sock: sock.shutdown(socket.SHUT_WR), False, False)

ticks = []
done = Event()
def tick():
    ticks.append(1)
    if len(ticks) == 2:
        done.set()
    return len(ticks) < 2
reactor().every_tick(tick)
assert done.wait(90)
assert len(os.listdir("/proc/self/task")) == native, "a native thread was started"
assert len(clock) > 50, "the hub was blocked"
print("well")
"""
    assert run(code) == "well"


@pytest.mark.slow
def test_timers_are_called_in_their_order_and_those_that_were_cancelled_are_not() -> None:
    called: list[str] = []
    timers: list[Timer] = []
    done = Called()

    def request() -> None:  # on the reactor's thread: no tick comes in between
        timers.append(reactor().call_later(0.02, lambda: (called.append("last"), done())))
        timers.append(reactor().call_later(0.0, lambda: called.append("never")))
        reactor().call_later(0.01, lambda: called.append("first"))
        timers[1].cancel()
        timers[1].cancel()

    reactor().call_soon(request)
    assert done.within()
    last, never = timers
    assert done.thread == "ssesync-reactor"
    assert called == ["first", "last"]
    assert last.cancelled
    assert never.cancelled


@pytest.mark.slow
def test_a_timer_that_fails_is_logged_and_the_next_is_called(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("in a timer")

    done = Called()
    reactor().call_later(0.0, fail)
    reactor().call_later(0.01, done)
    assert done.within()
    callers().wait(90)
    assert "in a timer" in caplog.text


def test_calls_from_any_thread_and_from_signal_handlers_are_made_in_their_order() -> None:
    called: list[int] = []
    done = Called()
    for number in range(100):
        add = reactor().call_from_signal if number % 3 else reactor().call_soon
        add(lambda number=number: called.append(number))  # type: ignore[misc]
    reactor().call_soon(done)
    assert done.within()
    assert called == list(range(100))


@pytest.mark.slow
def test_require_thread_raises_without_a_thread_and_succeeds_later() -> None:
    code = """
import threading
from ssesync.reactor import reactor

def fail(self):
    raise RuntimeError("can't start new thread")

start, threading.Thread.start = threading.Thread.start, fail
for _ in range(2):
    try:
        reactor().require_thread()
    except RuntimeError:
        pass
    else:
        raise AssertionError("there was a thread")
threading.Thread.start = start
called = threading.Event()
reactor().call_soon(called.set)
reactor().require_thread()
assert called.wait(90)
print([thread.name for thread in threading.enumerate()].count("ssesync-reactor"))
"""
    assert run(code) == "1"


@pytest.mark.slow
def test_threads_that_need_the_reactor_at_once_get_one() -> None:
    code = """
import threading
from ssesync.reactor import reactor

barrier, failed = threading.Barrier(20), []

def need():
    barrier.wait()
    try:
        reactor().require_thread()
    except RuntimeError as error:
        failed.append(error)

threads = [threading.Thread(target=need) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
print([thread.name for thread in threading.enumerate()].count("ssesync-reactor"))
"""
    assert run(code) == "1"


@pytest.mark.slow
def test_under_gevent_a_forked_child_has_a_greenlet_of_its_own() -> None:
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, os, socket, threading
from ssesync.reactor import reactor, reactor_if_any

kept, peer = socket.socketpair()
parents = threading.Event()
reactor().watch(kept.fileno(), parents.set)
gevent.sleep(0.1)
child = os.fork()
if not child:
    assert reactor_if_any() is None
    ours, theirs = socket.socketpair()
    called = threading.Event()
    reactor().watch(ours.fileno(), called.set)
    theirs.close()
    os._exit(not called.wait(90))
assert os.waitpid(child, 0)[1] == 0
peer.close()
assert parents.wait(90)
print("well")
"""
    assert run(code) == "well"
