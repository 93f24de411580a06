"""Runs whose process ends, is halted, forks or is told to stop; and starts in several processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync import Broker, RunRefused, RunState
from ssesync.channels.runs.record import RunRecord
from ssesync.server.registry import streams

from ..conftest import Open
from .conftest import final_of, texts_of

ROOT = Path(__file__).parents[4]
Start = Callable[..., "subprocess.Popen[str]"]

#: Between processes.
shared = pytest.mark.parametrize("kind", ["sqlite", "redis"])


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Starts a process."""
    started: list[subprocess.Popen[str]] = []

    def start_it(what: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.unit.channels.runs.processes", what, url, *map(str, args)]
        started.append(subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield start_it
    for each in started:
        with contextlib.suppress(OSError):
            each.kill()
        each.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("sqlite", 1.0), ("redis", 2.0)], ids=["sqlite", "redis"])
def test_the_run_of_a_process_that_is_killed_is_interrupted_once(openers: Open, start: Start, most: float) -> None:
    lease = 1.0
    owner = start("own", lease)
    assert line(owner) == "begun"
    followers = [openers() for _ in range(3)]
    found = [broker.get_run("a") for broker in followers]
    time.sleep(0.3)
    owner.kill()
    seconds = [0.0] * len(found)

    def wait(place: int) -> None:
        began = time.monotonic()
        assert found[place].wait(90)
        seconds[place] = time.monotonic() - began

    threads = [threading.Thread(target=wait, args=(place,)) for place in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(run.state, run.reason) for run in found} == {(RunState.INTERRUPTED, "")}
    assert final_of(followers[0], "a") == {"state": "interrupted"}
    assert texts_of(followers[0], "a") == [f'{{"number":{n}}}' for n in range(len(texts_of(followers[0], "a")))]
    assert max(seconds) < most + 1  # seconds of a machine that has more to do


@pytest.mark.slow
@shared
def test_a_process_that_was_halted_is_fenced_and_its_producer_cancelled(openers: Open, start: Start) -> None:
    owner = start("own", 1.0)
    assert line(owner) == "begun"
    broker = openers()
    run = broker.get_run("a")
    for _ in range(10):
        os.kill(owner.pid, signal.SIGSTOP)
        if run.wait(90):
            break
        os.kill(owner.pid, signal.SIGCONT)  # it was halted within a transaction of SQLite's, for which all wait
    assert run.state is RunState.INTERRUPTED
    assert broker.start_run("a", ["of another process"], restart=True).wait(90)
    os.kill(owner.pid, signal.SIGCONT)
    assert {line(owner), line(owner)} == {"ended cancelled", "state interrupted"}
    assert texts_of(broker, "a") == ["of another process"]


@pytest.mark.slow
@shared
def test_a_stop_reaches_a_producer_that_writes_nothing(openers: Open, start: Start) -> None:
    owner = start("silent", 150.0)
    assert line(owner) == "begun"
    broker = openers()
    time.sleep(1)  # its listener has nothing to do by now
    began = time.time()
    assert broker.stop_run("a")
    seconds = float(line(owner).removeprefix("cancelled ")) - began
    assert seconds < 40, (
        seconds
    )  # 0.02 on a machine that has nothing else to do; else the next renewal shows it, after 50


@pytest.mark.slow
@shared
def test_of_many_starts_in_several_processes_one_starts_the_producer(openers: Open, start: Start) -> None:
    processes = [start("starts", 13) for _ in range(4)]
    for process in processes:
        assert line(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].split("\n") for process in processes]
    assert sorted(filter(None, itertools.chain(*said))) == ["joined 13"] * 4 + ["producer"]
    assert texts_of(openers(), "a") == ["x"]


@pytest.mark.slow
def test_a_child_that_is_forked_leaves_the_parents_runs_alone(start: Start) -> None:
    process = start("fork")
    assert process.communicate(timeout=60)[0] == "0 done done\n"


@pytest.mark.slow
@shared
def test_a_process_that_exits_interrupts_its_runs(openers: Open, start: Start) -> None:
    assert start("at_exit").wait(60) == 0
    assert final_of(openers(), "a") == {"state": "interrupted", "events": 1, "reason": "shutdown"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(("seconds", "state"), [(1, "done"), (30, "interrupted")])
def test_a_process_that_is_told_to_stop_lets_its_runs_finish_for_a_while(
    openers: Open, start: Start, seconds: float, state: str
) -> None:
    process = start("on_term", seconds)
    assert line(process) == "begun"
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    final = final_of(openers(), "a")
    assert final["state"] == state
    if state == "interrupted":
        assert final["reason"] == "shutdown"


def test_a_process_that_stops_starts_no_runs(memory: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "stopping_since", time.monotonic())
    with pytest.raises(RunRefused):
        memory.start_run("a", ["x"])


@pytest.mark.slow
@shared
def test_one_process_is_called_for_a_run_that_was_interrupted(openers: Open, start: Start) -> None:
    called: list[tuple[Broker, RunRecord]] = []
    brokers = [openers() for _ in range(3)]
    again = threading.Event()

    def handler_of(broker: Broker) -> Callable[[RunRecord], Any]:
        def handle(record: RunRecord) -> None:
            called.append((broker, record))
            broker.start_run(record.name, ["again"], restart=True).wait(90)
            again.set()

        return handle

    for broker in brokers:
        broker.on_interrupted(handler_of(broker))
        with contextlib.suppress(LookupError):
            broker.get_run("other")  # it looks after runs
        broker.subscribe("other")
    run = brokers[0].queue_run("a", wait=0.01)
    assert brokers[0].get_run("a").name == run.name
    assert again.wait(90)
    time.sleep(0.3)
    assert len(called) == 1
    assert called[0][1].state is RunState.INTERRUPTED
    assert texts_of(brokers[0], "a") == ["again"]
