"""How long a source waits before it comes back, and when it gives up. No test waits: time is a FakeClock's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from ssesync import Backoff, ConnectionLost, RetriesExhausted, SettingsError, StatusError, StreamEnded
from ssesync.client.connect import retry_after
from ssesync.testing import Answer, FakeClock, FakeSSEServer

from ....cases import each_case
from .following import Following, Log, data_of, in_turn, source_of, take

NOW = FakeClock().time()


def date(seconds: float) -> str:
    """As HTTP writes it, so many seconds from now."""
    return formatdate(NOW + seconds, usegmt=True)


def asctime(seconds: float) -> str:
    return time.asctime(time.gmtime(NOW + seconds))


# From what the header says to the least that is waited.
RETRY_AFTER = {
    "0": 0,
    "7": 7,
    "007": 7,
    "  12\t": 12,
    "3600": 3600,
    "3601": 3600,
    "9" * 40: 3600,
    "9" * 5000: 3600,
    date(90): 90,
    date(0): 0,
    date(-90): 0,
    date(1e6): 3600,
    asctime(90): 90,
    "Fri, 31 Dec 9999 23:59:59 GMT": 3600,
    "Friday, 31-Dec-99 23:59:59 GMT": 0,
    "": 0,
    "soon": 0,
    "-5": 0,
    "+5": 0,
    "1.5": 0,
    "1e3": 0,
    "1_000": 0,
    "Wed, 99 Foo 2026 99:99:99 GMT": 0,
    "Fri, 31 Dec 99999999999 23:59:59 GMT": 0,
}


@pytest.mark.parametrize("value", RETRY_AFTER, ids=lambda value: value[:40])
def test_retry_after_is_a_floor(value: str, server: FakeSSEServer, smallest_waits: None) -> None:
    server.answer(503, headers={"Retry-After": value})
    server.answer().event("one")
    clock = FakeClock()
    assert data_of(source_of(server, clock=clock)) == ["one"]
    assert clock.waits == [pytest.approx(RETRY_AFTER[value], abs=1.1), 0.0]


def test_retry_after_means_gmt_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = SimpleNamespace(status_code=503, headers={"Retry-After": asctime(90)})
    for zone in ("UTC", "Asia/Tokyo", "XYZ+7"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert retry_after(StatusError("busy", answered, b""), NOW) == pytest.approx(90, abs=1.1)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_retry_after_of_any_transient_status_is_obeyed(
    status: int, server: FakeSSEServer, smallest_waits: None
) -> None:
    server.answer(status, retry_after=5, times=2)
    server.answer(status)
    clock = FakeClock()
    assert data_of(source_of(server, clock=clock)) == []
    assert clock.waits == [5.0, 5.0, 0.0]


def test_a_shortened_retry_after_is_logged(server: FakeSSEServer, caplog: pytest.LogCaptureFixture) -> None:
    server.answer(503, retry_after=7200, times=5)
    clock = FakeClock()
    with caplog.at_level(logging.WARNING, "ssesync"):
        data_of(source_of(server, clock=clock))
    assert [record.getMessage() for record in caplog.records] == [
        "the server requests a wait of 7200.0 s (Retry-After); waiting for 3600.0 s"
    ]


def test_the_longer_of_retry_and_retry_after_counts(server: FakeSSEServer, smallest_waits: None) -> None:
    server.answer().retry(9000).event("one")
    server.answer(503, retry_after=3)
    server.answer(503, retry_after=30)
    clock = FakeClock()
    assert data_of(source_of(server, clock=clock)) == ["one"]
    assert clock.waits == [9.0, 9.0, 30.0]


# From what the stream says to the reconnection time that counts and the least that is waited.
RETRY: dict[str, tuple[int | None, float]] = {
    "0": (0, 0.0),
    "5000": (5000, 5.0),
    "0007": (7, 0.007),
    "60000": (60_000, 60.0),
    "60001": (60_001, 60.0),
    "99999999999": (99_999_999_999, 60.0),
    "9" * 400: (10**18, 60.0),
    "9" * 5000: (10**18, 60.0),
    "+5": (None, 0.0),
    "-5": (None, 0.0),
    " 5": (None, 0.0),
    "5 ": (None, 0.0),
    "1_0": (None, 0.0),
    "1e3": (None, 0.0),
    "5.0": (None, 0.0),
    "0x10": (None, 0.0),
    "٣": (None, 0.0),
    "": (None, 0.0),
    "soon": (None, 0.0),
}


@pytest.mark.parametrize("value", RETRY, ids=lambda value: value[:20] or "empty")
def test_the_streams_reconnection_time_is_a_floor(
    value: str, server: FakeSSEServer, smallest_waits: None, caplog: pytest.LogCaptureFixture
) -> None:
    milliseconds, floor = RETRY[value]
    server.answer().retry(value).event("one")
    server.answer(503, times=2)
    server.answer().event("two")
    clock = FakeClock()
    source = source_of(server, clock=clock)
    with caplog.at_level(logging.WARNING, "ssesync"):
        assert source.read().data == "one"  # type: ignore[union-attr]
        assert source.retry == milliseconds
        assert data_of(source) == ["two"]
    assert source.retry == milliseconds
    assert clock.waits == [floor] * 4
    assert len(caplog.records) == ((milliseconds or 0) > 60_000)


def test_the_reconnection_time_outlasts_every_kind_of_failure_until_the_stream_sets_another(
    serve: Callable[..., FakeSSEServer], smallest_waits: None
) -> None:
    server = serve(
        in_turn(
            Answer().retry(2000).event("one"),
            Answer(500),
            Answer().event("two").drop(),
            Answer().retry("many").event("three"),
            Answer().retry(4000).drop(),
            Answer().retry(0).event("four"),
            Answer(503),
        )
    )
    clock = FakeClock()
    assert data_of(source_of(server, clock=clock)) == ["one", "two", "three", "four"]
    assert clock.waits == [2.0, 2.0, 2.0, 2.0, 4.0, 0.0, 0.0]


def test_a_reconnection_time_counts_though_the_event_it_came_with_was_cut(
    server: FakeSSEServer, smallest_waits: None
) -> None:
    server.answer().raw("retry: 3000\ndata: hal").drop()
    clock = FakeClock()
    assert data_of(source_of(server, clock=clock)) == []
    assert clock.waits == [3.0]


class TestBackoff:
    """The growing part of a wait."""

    def test_the_window_doubles_up_to_the_longest(self, server: FakeSSEServer, largest_waits: None) -> None:
        server.answer(503, times=9)
        clock = FakeClock()
        data_of(source_of(server, clock=clock))
        assert clock.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]

    def test_it_lies_above_the_floor(self, server: FakeSSEServer, largest_waits: None) -> None:
        server.answer().retry(10_000).event("one")
        server.answer(503, times=3)
        clock = FakeClock()
        data_of(source_of(server, clock=clock, backoff=Backoff(initial=0.5, max_delay=20)))
        assert clock.waits == [10.5, 11.0, 12.0, 14.0]

    def test_no_wait_leaves_its_window(self, server: FakeSSEServer) -> None:
        server.answer(503, times=12)
        clock = FakeClock()
        data_of(source_of(server, clock=clock, backoff=Backoff(initial=2, max_delay=30)))
        assert all(0 <= wait <= min(2.0 * 2**n, 30) for n, wait in enumerate(clock.waits))
        assert len(set(clock.waits)) > 6

    def test_an_initial_delay_of_0_comes_back_at_once_but_does_not_hammer(
        self, server: FakeSSEServer, largest_waits: None
    ) -> None:
        server.answer(503, times=4)
        clock = FakeClock()
        data_of(source_of(server, clock=clock, backoff=Backoff(initial=0)))
        assert clock.waits == [0.0, 0.2, 0.4, 0.8]

    def test_the_window_stays_in_bounds_after_years_of_failures(self) -> None:
        for backoff in (Backoff(), Backoff(initial=0), Backoff(initial=1e308, max_delay=5)):
            for failures in (1, 2, 64, 1100, 10**9):
                assert 0 <= backoff.window(failures) <= backoff.max_delay

    @each_case("name", ["initial", "max_delay", "max_retry_after", "reset_after", "max_attempts"])
    @each_case("value", [-1, float("nan"), float("inf"), "1", True], ids=repr)
    def test_what_is_no_delay_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(SettingsError, match=name):
            Backoff(**{name: value})

    @pytest.mark.slow
    def test_200_clients_that_are_dropped_at_once_come_back_spread_over_the_window(
        self, serve: Callable[..., FakeSSEServer]
    ) -> None:
        server = serve([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"])
        waits = []
        for _ in range(200):
            clock = FakeClock()
            with pytest.raises(RetriesExhausted):
                data_of(source_of(server, clock=clock, backoff=Backoff(initial=10, max_attempts=1)))
            waits += clock.waits
        # Each tenth of the window has 20 on average; that one has none would happen once in 10**8 runs.
        tenths = [sum(second <= wait < second + 1 for wait in waits) for second in range(10)]
        assert sum(tenths) == 200
        assert min(tenths) >= 1
        assert max(tenths) <= 60


class TestGivingUp:
    @pytest.mark.slow
    def test_a_server_that_accepts_and_closes_is_given_up_after_max_attempts(
        self, server: FakeSSEServer, largest_waits: None
    ) -> None:
        server.drop(times=None)
        clock, log = FakeClock(), Log()
        source = source_of(server, clock=clock, backoff=Backoff(max_attempts=50), **log.hooks)
        with pytest.raises(RetriesExhausted) as raised:
            data_of(source)
        assert raised.value.attempts == 50
        assert raised.value.last_error is log.errors[-1]
        assert raised.value.__cause__ is log.errors[-1]
        assert len(server.requests) == 51
        assert clock.waits == [1, 2, 4, 8, 16, 32, *[60] * 44]
        assert source.state == "closed"

    @pytest.mark.parametrize(
        ("answer", "error", "seen"),
        [
            (Answer().event("one").drop(), ConnectionLost, ["one"] * 6),
            (Answer().keep_alive(), StreamEnded, []),
            (Answer().event(id=7).retry(5), StreamEnded, []),
        ],
        ids=["an event, then broken off", "no event", "no event but an id"],
    )
    def test_a_stream_that_ends_at_once_counts_as_a_failure(
        self, answer: Answer, error: type[Exception], seen: list[str], server: FakeSSEServer
    ) -> None:
        server.add(answer, times=None)
        came: list[str | None] = []
        with pytest.raises(RetriesExhausted) as raised:
            take(source_of(server, backoff=Backoff(max_attempts=5)), came)
        assert came == seen
        assert isinstance(raised.value.last_error, error)

    def test_no_attempt_at_all_may_be_allowed(self, server: FakeSSEServer) -> None:
        server.answer(503)
        with pytest.raises(RetriesExhausted, match="after 0 reconnections"):
            data_of(source_of(server, backoff=Backoff(max_attempts=0)))
        assert len(server.requests) == 1

    @pytest.mark.slow
    def test_no_wait_is_begun_that_would_end_after_max_elapsed(
        self, server: FakeSSEServer, largest_waits: None
    ) -> None:
        server.answer(503, times=None)
        clock = FakeClock()
        with pytest.raises(RetriesExhausted, match="after 4 reconnections within 15 s"):
            data_of(source_of(server, clock=clock, backoff=Backoff(max_elapsed=30)))
        assert clock.waits == [1.0, 2.0, 4.0, 8.0]

    def test_a_retry_after_beyond_max_elapsed_is_not_waited_for(self, server: FakeSSEServer) -> None:
        server.answer(503, retry_after=300)
        clock = FakeClock()
        with pytest.raises(RetriesExhausted):
            data_of(source_of(server, clock=clock, backoff=Backoff(max_elapsed=60)))
        assert clock.waits == []

    def test_the_time_begins_with_the_first_failure_of_the_row(
        self, serve: Callable[..., FakeSSEServer], largest_waits: None
    ) -> None:
        clock = FakeClock()
        server = serve(in_turn(Answer(503), Answer().event("one"), *[Answer(503)] * 9))
        source = source_of(server, clock=clock, backoff=Backoff(max_elapsed=10))
        assert source.read() is not None
        clock.advance(3600)
        with pytest.raises(RetriesExhausted, match="after 3 reconnections"):
            source.read()
        assert clock.waits == [1.0, 1.0, 2.0, 4.0]


class TestReset:
    """Streams that break: the count starts anew only after one that was open for long and delivered something."""

    @pytest.mark.parametrize(
        ("seconds", "delivers", "resets"),
        [(60, True, True), (59.9, True, False), (60, False, False), (10_000, True, True)],
        ids=["long enough", "too short", "nothing came", "very long"],
    )
    def test_the_count(
        self,
        seconds: float,
        delivers: bool,
        resets: bool,
        serve: Callable[..., FakeSSEServer],
        largest_waits: None,
    ) -> None:
        clock = FakeClock()
        answer = Answer().keep_alive()
        if delivers:
            answer.event("one")
        answer.drop()
        server = serve(in_turn(*[Answer(503)] * 3, answer, Answer(503)))
        attempts = []
        source = source_of(
            server,
            clock=clock,
            on_open=lambda _: clock.advance(seconds),
            on_retry=lambda error, delay, attempt: attempts.append(attempt),
        )
        assert data_of(source) == (["one"] if delivers else [])
        assert attempts == ([1, 2, 3, 1, 2] if resets else [1, 2, 3, 4, 5])
        assert clock.waits == ([1, 2, 4, 1, 2] if resets else [1, 2, 4, 8, 16])
        assert source.attempt == attempts[-1]

    def test_a_stream_that_delivers_but_is_dropped_soon_does_not_pass_for_healthy(
        self, server: FakeSSEServer, largest_waits: None
    ) -> None:
        server.answer(times=6).event("one").drop()
        clock = FakeClock()
        assert len(data_of(source_of(server, clock=clock))) == 6
        assert clock.waits == [1, 2, 4, 8, 16, 32]

    def test_restart_counts_as_no_failure(self, server: FakeSSEServer) -> None:
        server.answer(times=4).event("one").stall()
        clock, log = FakeClock(), Log()
        source = source_of(server, clock=clock, **log.hooks)
        for _ in range(4):
            assert source.read() is not None
            source.restart()
        assert source.read() is None
        assert clock.waits == []
        assert log.errors == []
        assert source.attempt == 0


class TestOrderlyEnds:
    """An end in order after an event is no failure; a server that accepts and closes is not hammered for all that."""

    def test_the_waits_start_anew(self, serve: Callable[..., FakeSSEServer], largest_waits: None) -> None:
        server = serve(in_turn(*[Answer(503)] * 3, Answer().event("one"), *[Answer(503)] * 2))
        clock, attempts = FakeClock(), []
        source = source_of(server, clock=clock, on_retry=lambda error, delay, attempt: attempts.append(attempt))
        assert data_of(source) == ["one"]
        assert attempts == [1, 2, 3, 1, 2, 3]
        assert clock.waits == [1, 2, 4, 1, 2, 4]

    def test_the_server_says_how_long_to_stay_away(self, server: FakeSSEServer, smallest_waits: None) -> None:
        server.answer(times=9).retry(200).event("one")
        clock = FakeClock()
        assert len(data_of(source_of(server, clock=clock))) == 9
        assert clock.waits == [0.2] * 9

    def test_it_may_be_no_time_at_all(self, server: FakeSSEServer, smallest_waits: None) -> None:
        server.answer(times=5).retry(0).event("one")
        clock = FakeClock()
        assert len(data_of(source_of(server, clock=clock))) == 5
        assert clock.waits == [0.0] * 5

    def test_without_a_word_no_two_waits_in_a_row_are_below_a_second(
        self, server: FakeSSEServer, smallest_waits: None
    ) -> None:
        server.answer(times=6).event("one")
        clock = FakeClock()
        assert len(data_of(source_of(server, clock=clock))) == 6
        assert clock.waits == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]

    @pytest.mark.slow
    def test_by_chance_they_are_as_much_above_as_below(self, server: FakeSSEServer) -> None:
        server.answer(times=100).event("one")
        clock = FakeClock()
        assert len(data_of(source_of(server, clock=clock, backoff=Backoff(initial=2)))) == 100
        assert all(0 <= wait <= 2 for wait in clock.waits)
        assert all(max(pair) >= 1 for pair in pairwise(clock.waits))
        assert min(clock.waits) < 1

    def test_no_wait_is_longer_than_the_longest(self, server: FakeSSEServer) -> None:
        server.answer(times=6).event("one")
        clock = FakeClock()
        data_of(source_of(server, clock=clock, backoff=Backoff(initial=0.1, max_delay=0.2)))
        assert max(clock.waits) <= 0.2

    def test_one_that_brought_nothing_is_a_failure(self, server: FakeSSEServer, largest_waits: None) -> None:
        server.answer(times=4).keep_alive()
        clock = FakeClock()
        data_of(source_of(server, clock=clock))
        assert clock.waits == [1, 2, 4, 8]

    def test_the_limit_of_time_starts_anew_too(self, serve: Callable[..., FakeSSEServer], largest_waits: None) -> None:
        server = serve(in_turn(*[Answer(503)] * 2, Answer().event("one"), *[Answer(503)] * 2))
        clock = FakeClock()
        assert data_of(source_of(server, clock=clock, backoff=Backoff(max_elapsed=7.5))) == ["one"]
        assert clock.waits == [1, 2, 1, 2, 4]


def test_a_wait_is_held_by_the_given_clock_alone(server: FakeSSEServer, largest_waits: None) -> None:
    server.answer(503, times=2)
    server.answer().event("one")
    clock = FakeClock(hold=True)
    following = Following(source_of(server, clock=clock))
    clock.wait_until_waiting()
    assert following.source.state == "waiting"
    assert len(server.requests) == 1
    clock.advance(1.0)
    server.wait_for_requests(2)
    clock.wait_until_waiting()
    following.source.close()
    assert following.result() == []
    assert len(server.requests) == 2
