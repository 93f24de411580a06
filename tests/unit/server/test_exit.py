"""What a gunicorn worker does when it exits. With real workers: ``tests/live/detached/test_finishing.py``."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from gunicorn.config import Config
from gunicorn.workers.workertmp import WorkerTmp

from ssesync import Writer
from ssesync.server import exit as exiting
from ssesync.server.registry import streams

from .draining import undo_drain
from .test_shutdown import served


class Worker:
    """As far as it is used."""

    made: ClassVar[list[Worker]] = []

    def __init__(self, **settings: Any) -> None:
        self.made.append(self)
        self.cfg = Config()
        for name, value in {"graceful_timeout": 30, **settings}.items():
            self.cfg.set(name, value)
        self.tmp = WorkerTmp(self.cfg)
        self.pid, self.ppid = os.getpid(), os.getppid()
        self.alive, self.sockets, self.age = False, [], 1
        self.nr, self.max_requests = 0, sys.maxsize


@pytest.fixture(autouse=True)
def before_and_after() -> Iterator[None]:
    on_tick = streams.on_tick
    yield
    undo_drain()
    streams.on_tick = on_tick
    exiting._after_fork()
    while Worker.made:
        Worker.made.pop().tmp.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What signals were sent to the arbiter, and none is."""
    calls: list[tuple[int, int]] = []
    real = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, signum: calls.append((pid, signum)) if signum else real(pid, signum))
    return calls


def arbiter(*siblings: tuple[int, int]) -> Any:
    """One that had these workers, by age and process, when this one was started."""
    return types.SimpleNamespace(WORKERS={pid: types.SimpleNamespace(age=age) for age, pid in siblings})


def finishing() -> tuple[Writer, Any]:
    writer = Writer()
    return writer, served(writer, drain="finish")


@pytest.mark.slow
def test_hooks_that_there_were_are_called_after_ours() -> None:
    called: list[str] = []
    worker = Worker(
        worker_exit=lambda server, worker: called.append(f"exit {streams.stopping}"),
        worker_int=lambda worker: called.append("int"),
        worker_abort=lambda worker: called.append("abort"),
    )
    exiting.prepare(worker)
    exiting.prepare(worker)
    worker.cfg.worker_exit(arbiter(), worker)
    worker.cfg.worker_int(worker)
    worker.cfg.worker_abort(worker)
    assert called == ["exit True", "int", "abort"]


def test_outside_of_gunicorn_nothing_is_set() -> None:
    exiting.prepare()
    assert not exiting._current


@pytest.mark.slow
def test_it_waits_until_the_streams_have_finished_and_sends_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    exiting.prepare(worker)
    writer, stream = finishing()
    descriptor = os.dup(worker.tmp.fileno())
    os.utime(descriptor, (0, 0))
    worker.tmp.close()  # as the arbiter does
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(os.fstat(descriptor).st_mtime)
        if len(waits) == 3:
            writer.close()
            assert list(stream) == []

    monkeypatch.setattr(exiting, "time", types.SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    exiting.finish(arbiter(), worker)
    os.close(descriptor)
    assert len(waits) == 3
    assert all(waits)
    assert stream.reason == "done"


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["worker_int", "worker_abort"])
def test_after_a_signal_to_stop_quickly_it_does_not_wait(hook: str) -> None:
    worker = Worker()
    exiting.prepare(worker)
    writer, stream = finishing()
    getattr(worker.cfg, hook)(worker)
    exiting.finish(arbiter(), worker)
    assert streams.stopping
    writer.close()
    list(stream)


def test_in_the_arbiter_itself_the_hook_does_nothing() -> None:
    worker = Worker()
    worker.pid = os.getppid()
    exiting.finish(arbiter(), worker)
    assert not streams.stopping


@pytest.mark.slow
def test_it_waits_no_longer_than_the_time_to_finish() -> None:
    worker = Worker()
    stream = served(drain="finish", drain_timeout=0.1)
    exiting.finish(arbiter(), worker)
    assert b"".join(stream).startswith(b"retry: ")


def sibling() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


another, yet_another = pytest.fixture(sibling, name="another"), pytest.fixture(sibling, name="yet_another")


def ask(worker: Worker, server: Any) -> None:
    worker.ppid = os.getpid()  # the siblings are this process's children
    made = exiting._Substitute(server, worker)
    made._arbiter = os.getppid()
    made.request()
    made.release()


def test_the_only_worker_requests_another_one_and_reverts_that(calls: list[tuple[int, int]]) -> None:
    worker = Worker(workers=1)
    worker.nr = worker.max_requests = 10
    ask(worker, arbiter())
    assert calls == [(os.getppid(), signal.SIGTTIN), (os.getppid(), signal.SIGTTOU)]


@pytest.mark.parametrize(("requests", "expected"), [(9, 0), (10, 2)])
def test_only_a_worker_that_reached_max_requests_requests_a_substitute(
    calls: list[tuple[int, int]], requests: int, expected: int
) -> None:
    worker = Worker(workers=1)
    worker.nr, worker.max_requests = requests, 10
    ask(worker, arbiter())
    assert len(calls) == expected


@pytest.mark.parametrize(("workers", "expected"), [(1, 2), (2, 0), (3, 0)])
def test_with_an_older_worker_that_may_answer_it_does_not_ask(
    calls: list[tuple[int, int]], another: int, workers: int, expected: int
) -> None:
    worker = Worker(workers=workers)
    worker.nr = worker.max_requests = 10
    ask(worker, arbiter((1, another)))
    assert len(calls) == expected


def test_of_two_older_ones_the_oldest_is_the_one_that_was_too_many(
    calls: list[tuple[int, int]], another: int, yet_another: int
) -> None:
    worker = Worker(workers=2)
    worker.nr = worker.max_requests = 10
    ask(worker, arbiter((1, another), (2, yet_another)))
    assert calls == []


def test_a_worker_that_is_gone_answers_nothing(calls: list[tuple[int, int]]) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    worker = Worker(workers=2)
    worker.nr = worker.max_requests = 10
    ask(worker, arbiter((1, process.pid)))
    assert len(calls) == 2


def test_after_a_sigterm_it_does_not_take_the_other_one_back(
    calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: came.append(signum))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        worker = Worker(workers=1)
        worker.nr = worker.max_requests = 10
        worker.ppid = os.getppid()
        made = exiting._Substitute(arbiter(), worker)
        made.request()
        signal.raise_signal(signal.SIGTERM)
        made.release()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [signum for _, signum in calls] == [signal.SIGTTIN]
    assert came == [signal.SIGTERM]


def test_an_arbiter_of_another_user_gets_no_signal_and_that_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(pid: int, signum: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    worker = Worker(workers=1)
    worker.nr = worker.max_requests = 10
    with caplog.at_level(logging.WARNING, "ssesync"):
        ask(worker, arbiter())
    assert caplog.text.count("it may run as another user") == 1
