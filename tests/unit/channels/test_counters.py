"""Counters that any thread may add to at any moment."""

from __future__ import annotations

import threading

from ssesync.channels.counters import Counters


def test_a_counter_starts_at_zero_and_grows_by_what_is_added() -> None:
    counters = Counters("published", "dropped")
    assert counters.snapshot() == {"published": 0, "dropped": 0}
    counters.add("published", 1)
    counters.add("published", 41)
    counters.add("dropped", 0)
    assert counters.snapshot() == {"published": 42, "dropped": 0}


def test_threads_that_add_at_the_same_time_lose_nothing() -> None:
    counters = Counters("published")
    start = threading.Barrier(8)

    def add() -> None:
        start.wait(90)
        for _ in range(500):
            counters.add("published", 3)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert counters.snapshot() == {"published": 8 * 500 * 3}
