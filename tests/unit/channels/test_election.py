"""One of several processes feeds: by the rules of the lease, and with processes that are killed and halted."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssesync import BrokerUnavailable, Subscription, open_broker
from ssesync.channels import election as module
from ssesync.channels.election import LeaderElection
from ssesync.testing import Answer, FakeSSEServer, Pause, RecordedRequest, Steps, chunk
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[3]
SECONDS = 10.0


class Time:
    """A clock that each process may see a little differently."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.off = 0.0

    def time(self) -> float:
        return self.now + self.off


class Claims:
    """What a broker remembers of claims."""

    def __init__(self, clock: Time) -> None:
        self._clock = clock
        self.made: dict[str, float] = {}
        self.fails = False

    def __call__(self, name: str, seconds: float) -> bool:
        if self.fails:
            raise BrokerUnavailable("down")
        if self.made.get(name, 0.0) >= self._clock.now:
            return False
        self.made[name] = self._clock.now + seconds
        return True


class Process:
    def __init__(self, clock: Time, claims: Claims, off: float = 0.0) -> None:
        self.clock = clock
        self.off = off
        self.election = LeaderElection(claims, "a", SECONDS)
        self.due = clock.now
        self.alive = True

    def leads(self) -> bool:
        self.clock.off = self.off
        return self.election.is_leader()

    def step(self) -> None:
        self.clock.off = self.off
        try:
            self.election.renew()
            self.due = self.clock.now + self.election.renew_after()
        except BrokerUnavailable:
            self.due = self.clock.now + 0.5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(module, "time", SimpleNamespace(time=clock.time))
    return clock


def run(clock: Time, processes: list[Process], seconds: float) -> list[int | None]:
    """Who had the lease, ten times a second. Never two at once."""
    holders = []
    for _ in range(int(seconds * 10)):
        for number in random.sample(range(len(processes)), len(processes)):
            process = processes[number]
            if process.alive and clock.now >= process.due:
                process.step()
        having = [number for number, process in enumerate(processes) if process.alive and process.leads()]
        assert len(having) < 2
        holders.append(having[0] if having else None)
        clock.now += 0.1
    return holders


@pytest.mark.parametrize("off", [0.0, 4.5])
def test_one_has_it_and_keeps_it_also_where_clocks_differ_by_less_than_half_a_slot(clock: Time, off: float) -> None:
    claims = Claims(clock)
    processes = [Process(clock, claims, by) for by in (0.0, off, -off / 2, off / 2)]
    # From the slot on that nobody's clock is behind.
    assert run(clock, processes[:1], SECONDS) == [0] * 100
    assert run(clock, processes, 500) == [0] * 5000
    assert len([name for name, until in claims.made.items() if until > clock.now]) <= 4  # the rest may be forgotten


def test_within_one_and_a_half_slots_after_the_holder_s_death_another_has_it(clock: Time) -> None:
    for moment in range(40):
        claims = Claims(clock)
        processes = [Process(clock, claims) for _ in range(3)]
        processes[0].step()
        run(clock, processes, SECONDS + moment * SECONDS / 20)
        processes[0].alive = False
        holders = run(clock, processes, 1.7 * SECONDS)
        # One and a half, and the tenth within which those who ask come one after the other.
        assert holders.index(next(each for each in holders if each is not None)) <= 1.6 * SECONDS * 10 + 1
        assert len({*holders} - {None}) == 1


def test_without_the_broker_a_leader_leads_until_its_slots_end_and_again_if_no_other_process_has_claimed_one(
    clock: Time,
) -> None:
    claims = Claims(clock)
    one = Process(clock, claims)
    one.step()
    clock.now += 0.6 * SECONDS
    one.step()  # the next slot too
    claims.fails = True
    holders = run(clock, [one], 3 * SECONDS)
    assert set(holders[: int(1.3 * SECONDS * 10)]) == {0}
    assert holders[-1] is None
    claims.fails = False
    assert run(clock, [one], SECONDS)[10:] == [0] * 90


def test_a_process_that_was_halted_too_long_is_no_longer_the_leader(clock: Time) -> None:
    claims = Claims(clock)
    halted, other = Process(clock, claims), Process(clock, claims)
    halted.step()
    run(clock, [other], 3 * SECONDS)
    assert not halted.leads()
    assert other.leads()
    halted.step()
    assert not halted.leads()


def test_a_child_has_not_what_its_parent_claimed(clock: Time) -> None:
    one = Process(clock, Claims(clock))
    one.step()
    assert one.leads()
    one.election.reset()
    assert not one.leads()


def test_a_clock_that_is_set_does_not_make_it_wait_for_long(clock: Time) -> None:
    claims = Claims(clock)
    one = Process(clock, claims)
    one.step()
    for jump in (-3600.0, 7200.0, -1.0, 4.0):
        clock.now += jump
        claims.made.clear()  # by their own clock, which may be another machine's, they have expired
        one.step()
        assert one.leads()
        assert 0 < one.election.renew_after() <= 1.5 * SECONDS


# With real processes.

LEASE = 2.0


class Upstream:
    """Tells the number of the tick to all who are connected, 20 times a second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.server = FakeSSEServer(self._play)

    def _play(self, request: RecordedRequest) -> Steps:
        yield from list(Answer().comment("ok").stall().steps())[:2]
        reported = 0
        while True:
            tick = int((time.monotonic() - self._began) * 20)
            if tick > reported:
                reported = tick
                yield chunk(b"data: %d\n\n" % tick)
            yield Pause(0.02)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    with upstream.server:
        yield upstream


@pytest.fixture
def feeding(upstream: Upstream) -> Iterator[Callable[[str], int]]:
    """Starts a process that feeds; its PID."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> int:
        command = [sys.executable, "-m", "tests.unit.channels.processes", "feed", url, upstream.server.url, str(LEASE)]
        processes.append(subprocess.Popen(command, cwd=ROOT))
        return processes[-1].pid

    yield start
    for process in processes:
        process.kill()
        process.wait(90)


class Seen:
    """What comes out of the channel, and who published it."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.ticks: list[int] = []
        self.by: list[int] = []

    def take(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not until():
            event = self._subscription.get(max(0.0, deadline - time.monotonic()))
            assert event is not None, "nobody feeds"
            pid, tick = (event.data or "").split()
            self.by.append(int(pid))
            self.ticks.append(int(tick))

    def terms(self) -> int:
        """How often the feed was begun."""
        return sum(1 for pid, before in zip(self.by, [0, *self.by], strict=False) if pid != before)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/channels.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return f"{server.url}?prefix=lease-{os.getpid()}-{threading.get_ident()}"


@pytest.mark.slow
def test_when_the_process_that_feeds_is_killed_another_does(
    url: str, upstream: Upstream, feeding: Callable[[str], int]
) -> None:
    with open_broker(url) as broker, broker.subscribe("a", patience=60) as subscription:
        seen = Seen(subscription)
        running = {feeding(url) for _ in range(3)}
        while running:
            seen.take(until=lambda: len(seen.by) > 20 and len({*seen.by[-20:]} & running) == 1)
            os.kill(seen.by[-1], signal.SIGKILL)
            running.discard(seen.by[-1])
    assert seen.ticks == sorted(set(seen.ticks)), "something came twice"
    # A machine that is too busy to renew the lease in time changes hands more often, but each has one connection.
    assert upstream.server.connections <= seen.terms() + 2


def test_a_process_that_was_halted_publishes_nothing_when_another_has_taken_over(
    redis_server: RedisServer, upstream: Upstream, feeding: Callable[[str], int]
) -> None:
    # Not SQLite, where a process may be halted within a transaction, and then nobody publishes.
    url = f"{redis_server.url}?prefix=halted-{os.getpid()}"
    with open_broker(url) as broker, broker.subscribe("a", patience=60) as subscription:
        seen = Seen(subscription)
        running = {feeding(url) for _ in range(2)}
        seen.take(until=lambda: len(seen.by) > 10)
        halted = seen.by[-1]
        os.kill(halted, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            stack.callback(os.kill, halted, signal.SIGCONT)
            seen.take(until=lambda: seen.by[-10:] == [*(running - {halted})] * 10)
        # What the upstream has said meanwhile waits for it, and is left alone, but for the event that it was at.
        after = len(seen.by)
        seen.take(until=lambda: len(seen.by) > after + 40)
        late = [tick for tick, newest in zip(seen.ticks, accumulate(seen.ticks, max), strict=True) if tick < newest]
        assert len(late) <= 1
        os.kill(*(running - {halted}), signal.SIGKILL)
        seen.take(until=lambda: seen.by[-10:] == [halted] * 10)
    assert upstream.server.connections <= seen.terms() + 2
