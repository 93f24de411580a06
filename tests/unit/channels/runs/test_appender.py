"""The appender: groups, the order of what it appends, and a log that can't be reached for a while."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ssesync import Broker, BrokerUnavailable, RunState, Writer, open_broker
from ssesync.channels.brokers.memory.broker import MemoryBroker
from ssesync.channels.entry import Entry
from ssesync.channels.runs import appender, process

from .conftest import final_of, texts_of

WAIT = 60


class Forgetful(MemoryBroker):
    """Loses the answers of some appends, or does not append. It counts the groups."""

    failures: Iterator[str] = iter(())
    groups: list[int]

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]:
        self.__dict__.setdefault("groups", []).append(len(entries))
        when = next(self.failures, "")
        if when == "before":
            raise BrokerUnavailable("not appended")
        answer = super()._append_many(entries, whole=whole)
        if when == "after":
            raise BrokerUnavailable("appended, but the answer was lost")
        return answer


def test_an_append_that_is_repeated_adds_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    with Forgetful() as broker:
        broker.failures = iter(["after", "before", "after", "", "after", "after"])
        with broker.open_run("a") as run:
            for number in range(200):
                run.write(str(number))
                time.sleep(0.0005)
        assert run.state is RunState.DONE
        assert texts_of(broker, "a") == [str(number) for number in range(200)]
        assert final_of(broker, "a") == {"state": "done", "events": 200}
    assert "it works again" in caplog.text


def test_writes_of_a_moment_are_one_group() -> None:
    with Forgetful() as broker:
        barrier = threading.Barrier(20)

        def produce(writer: Writer) -> None:
            barrier.wait(WAIT)
            for number in range(50):
                writer.write(str(number))

        runs = [broker.start_run(f"a{n}", produce, writer=True) for n in range(20)]
        assert all(run.wait(WAIT) for run in runs)
        for n in range(20):
            assert texts_of(broker, f"a{n}") == [str(number) for number in range(50)]
        assert len(broker.groups) < 200  # of 1,020 events


@pytest.mark.slow
def test_a_locked_file_delays_a_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "_MOST_BYTES", 20_000)
    path = tmp_path / "channels.db"
    with open_broker(f"sqlite:///{path}", busy_timeout=0.05) as broker:
        written = itertools.count()
        count = 0

        def produce(writer: Writer) -> None:
            nonlocal count
            for number in range(1000):
                writer.write(str(number))
                count = next(written)

        with broker.open_run("other") as run:  # the file is there, and this process owns runs
            run.write("x")
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        started = broker.start_run("a", produce, writer=True)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(0.5)
        held = count
        time.sleep(0.2)
        assert count == held < 999  # the producer waits
        other.execute("COMMIT")
        other.close()
        assert started.wait(WAIT)
        assert started.state is RunState.DONE
        assert texts_of(broker, "a") == [str(number) for number in range(1000)]


def test_what_waits_for_a_broker_that_is_gone_is_given_up_when_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_CLOSE_TIMEOUT", 0.1)
    broker = Forgetful()
    opened = broker.open_run("a")
    broker.failures = itertools.repeat("before")
    opened.write("x")
    broker.close()
    assert opened.wait(WAIT)
    assert opened.state is RunState.INTERRUPTED


def test_an_error_at_the_end_of_a_run_leaves_other_runs_alone(
    memory: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: str, *args: object) -> None:
        if message.startswith("run ended"):
            raise OSError("an application's filter of log records")

    with monkeypatch.context() as patch:
        patch.setattr(process.logger, "info", fail)
        memory.start_run("a", ["x"])
        deadline = time.monotonic() + 90
        while "was not ended as it should be" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert memory.start_run("b", ["y"]).wait(90)
    assert final_of(memory, "b") == {"state": "done", "events": 1}


def test_a_thread_that_waits_for_room_is_woken_by_the_end_of_its_run(
    memory: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def produce(writer: Writer) -> None:
        try:
            while True:
                writer.write("x")
        finally:
            ended.set()

    run = memory.start_run("first", ["x"])
    assert run.wait(WAIT)
    monkeypatch.setattr(appender, "_MOST_BYTES", 0)
    run = memory.start_run("a", produce, writer=True)
    assert memory.stop_run("a")
    assert ended.wait(WAIT)
    assert run.wait(WAIT)
