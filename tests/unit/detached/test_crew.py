"""A crew: calls on a few threads that an interpreter's exit does not wait for."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
import time

import pytest

from ssesync.executor import Crew

PATIENCE = 90.0


def test_calls_are_made_side_by_side_on_as_many_threads_as_are_needed_at_most():
    crew = Crew(3, "test-crew")
    barrier = threading.Barrier(3, timeout=PATIENCE)
    names: set[str] = set()

    def meet() -> None:
        barrier.wait()
        names.add(threading.current_thread().name)

    for _ in range(9):
        crew.ask(meet)
    crew.wait(PATIENCE)
    assert names == {"test-crew_0", "test-crew_1", "test-crew_2"}


def test_one_thread_is_enough_for_calls_that_come_one_by_one():
    crew = Crew(4, "test-single")
    for _ in range(20):
        done = threading.Event()
        crew.ask(done.set)
        assert done.wait(PATIENCE)
        crew.wait(PATIENCE)
        while not crew._idle:
            time.sleep(0.001)
    assert crew._threads == 1


def test_what_a_call_raises_is_logged_and_the_next_is_made(caplog: pytest.LogCaptureFixture):
    crew, done = Crew(1, "test-failing"), threading.Event()
    crew.ask(lambda: 1 / 0)
    crew.ask(done.set)
    assert done.wait(PATIENCE)
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()


def test_waiting_ends_when_the_time_is_over():
    crew, go_on = Crew(1, "test-waiting"), threading.Event()
    crew.ask(lambda: go_on.wait(PATIENCE))
    crew.wait(0.01)
    assert not go_on.is_set()
    go_on.set()
    crew.wait(PATIENCE)
    assert not crew._busy


def test_without_a_thread_to_be_had_calls_are_made_by_whoever_asks(monkeypatch: pytest.MonkeyPatch):
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    names: list[str] = []
    Crew(2, "test-none").ask(lambda: names.append(threading.current_thread().name))
    assert names == ["MainThread"]


def test_an_interpreter_that_exits_waits_for_no_call():
    script = (
        "import threading\n"
        "from ssesync.executor import Crew\n"
        "begun = threading.Event()\n"
        "Crew(2, 'x').ask(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE).returncode == 0


def test_what_ends_a_thread_elsewhere_ends_none_here(caplog: pytest.LogCaptureFixture):
    """A callback that calls sys.exit(), or an asyncio.CancelledError, which is no Exception either."""
    crew, done = Crew(2, "test-exiting"), threading.Event()
    for error in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()):
        crew.ask(functools.partial(fail, error))
    crew.ask(done.set)
    assert done.wait(PATIENCE)
    crew.wait(PATIENCE)
    assert not crew._busy
    assert "SystemExit(3)" in caplog.text
    assert "CancelledError()" in caplog.text
    caplog.clear()


def fail(error: BaseException) -> None:
    raise error
