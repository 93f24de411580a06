"""An executor: calls on a few threads that an interpreter's exit does not wait for."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading

import pytest

from ssesync.executor import Executor

TIMEOUT = 90.0


def test_calls_are_made_side_by_side_on_as_many_threads_as_are_needed_at_most():
    executor = Executor(3, "test-executor")
    barrier = threading.Barrier(3, timeout=TIMEOUT)
    names: set[str] = set()

    def meet() -> None:
        barrier.wait()
        names.add(threading.current_thread().name)

    for _ in range(9):
        executor.submit(meet)
    executor.wait(TIMEOUT)
    assert names == {"test-executor_0", "test-executor_1", "test-executor_2"}


def test_one_thread_is_enough_for_calls_that_come_one_by_one():
    executor = Executor(4, "test-single")
    for _ in range(20):
        done = threading.Event()
        executor.submit(done.set)
        assert done.wait(TIMEOUT)
        executor.wait(TIMEOUT)
    assert len(executor._names) == 3


def test_what_a_call_raises_is_logged_and_the_next_is_made(caplog: pytest.LogCaptureFixture):
    executor, done = Executor(1, "test-failing"), threading.Event()
    executor.submit(lambda: 1 / 0)
    executor.submit(done.set)
    assert done.wait(TIMEOUT)
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()


def test_waiting_ends_when_the_time_is_over():
    executor, go_on = Executor(1, "test-waiting"), threading.Event()
    executor.submit(lambda: go_on.wait(TIMEOUT))
    executor.wait(0.01)
    assert not go_on.is_set()
    go_on.set()
    executor.wait(TIMEOUT)
    assert not executor._unfinished


def test_where_no_thread_can_be_started_calls_are_made_by_the_thread_that_adds_them(monkeypatch: pytest.MonkeyPatch):
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    names: list[str] = []
    Executor(2, "test-none").submit(lambda: names.append(threading.current_thread().name))
    assert names == ["MainThread"]


@pytest.mark.slow
def test_an_interpreter_that_exits_waits_for_no_call():
    script = (
        "import threading\n"
        "from ssesync.executor import Executor\n"
        "begun = threading.Event()\n"
        "Executor(2, 'x').submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=TIMEOUT).returncode == 0


def test_what_ends_a_thread_elsewhere_ends_none_here(caplog: pytest.LogCaptureFixture):
    """A callback that calls sys.exit(), or an asyncio.CancelledError, which is no Exception either."""
    executor, done = Executor(2, "test-exiting"), threading.Event()
    for error in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()):
        executor.submit(functools.partial(fail, error))
    executor.submit(done.set)
    assert done.wait(TIMEOUT)
    executor.wait(TIMEOUT)
    assert not executor._unfinished
    assert "SystemExit(3)" in caplog.text
    assert "CancelledError()" in caplog.text
    caplog.clear()


def fail(error: BaseException) -> None:
    raise error
