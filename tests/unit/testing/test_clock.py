"""FakeClock: waits that take no time, or last for as long as the test says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssesync import CancelToken
from ssesync.testing import FakeClock, WaitTimeout

TIMEOUT = 90.0


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4)


def test_a_wait_returns_at_once_moves_the_clock_and_is_kept() -> None:
    clock = FakeClock()
    monotonic, now = clock.monotonic(), clock.time()
    assert clock.wait(threading.Event(), 3600) is False
    assert clock.wait(threading.Event(), 0.5) is False
    assert (clock.monotonic() - monotonic, clock.time() - now) == (3600.5, 3600.5)
    assert clock.waits == [3600, 0.5]


@pytest.mark.parametrize("kind", [threading.Event, CancelToken])
@pytest.mark.parametrize("hold", [True, False])
def test_an_event_that_is_set_ends_the_wait_before_it_begins(kind: Callable[[], threading.Event], hold: bool) -> None:
    clock = FakeClock(start=5, hold=hold)
    event = kind()
    event.set()
    assert clock.wait(event, 10) is True
    assert (clock.monotonic(), clock.waits) == (5, [])


def test_it_begins_at_the_given_times() -> None:
    clock = FakeClock(start=1, now=2)
    clock.advance(10)
    assert (clock.monotonic(), clock.time()) == (11, 12)
    with pytest.raises(ValueError, match="forwards only"):
        clock.advance(-1)


def test_a_wait_that_is_held_lasts_until_the_clock_has_passed_its_end(pool: ThreadPoolExecutor) -> None:
    clock = FakeClock(hold=True)
    with pool:
        waiting = pool.submit(clock.wait, threading.Event(), 10)
        clock.wait_until_waiting()
        assert (clock.waiting, clock.waits) == (1, [10])
        clock.advance(9)
        assert not waiting.done()
        clock.advance(1)
        assert waiting.result(TIMEOUT) is False
        assert clock.waiting == 0


def test_a_wait_that_is_held_ends_when_its_event_is_set(pool: ThreadPoolExecutor) -> None:
    clock, event = FakeClock(hold=True), threading.Event()
    with pool:
        waiting = [pool.submit(clock.wait, event, seconds) for seconds in (10, 20)]
        clock.wait_until_waiting(2)
        event.set()
        assert [each.result(TIMEOUT) for each in waiting] == [True, True]


def test_waiting_for_a_wait_that_does_not_come_is_a_timeout() -> None:
    with pytest.raises(WaitTimeout, match=r"0 threads wait on the clock after 0.01 s, not 1"):
        FakeClock(hold=True).wait_until_waiting(timeout=0.01)


def test_no_time_is_lost_between_threads(pool: ThreadPoolExecutor) -> None:
    clock = FakeClock(start=0)
    event = threading.Event()
    with pool:
        for done in [pool.submit(lambda: [clock.wait(event, 1) for _ in range(1000)]) for _ in range(4)]:
            done.result(TIMEOUT)
    assert (clock.monotonic(), len(clock.waits)) == (4000, 4000)
