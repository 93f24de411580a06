"""With real processes: servers that are killed, followers that are interrupted, and forks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ssesync import Backoff, EventSource
from ssesync.testing import HOLD, Answer, FakeSSEServer
from tests.redis_server import lasting_port

from .following import GEVENT, TIMEOUT, Following, Log, in_turn
from .replay_app import COUNT

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(GEVENT, reason="greenlets are tested within one process")


@contextmanager
def running(module: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module, *args]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(TIMEOUT, process.kill)  # so that reading its lines ends
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], last: str) -> list[str]:
    """What it says, up to a line."""
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line.rstrip("\n"))
        if output[-1] == last:
            return output
    assert process.stderr is not None
    raise AssertionError(f"{last!r} is not among {output}\n{process.stderr.read()}")


def test_a_server_that_is_killed_and_comes_back_costs_no_event_and_doubles_none() -> None:
    port = lasting_port()
    log = Log()
    source = EventSource(
        f"http://127.0.0.1:{port}/",
        backoff=Backoff(initial=0.05, max_delay=0.1),
        until=lambda event: event.type == "end",
        on_error=log.hooks["on_error"],
    )
    following = Following(source)
    for events in (COUNT // 5, COUNT // 2):
        with running("tests.unit.client.source.replay_app", str(port)) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            following.wait_for_events(events)
            server.send_signal(signal.SIGKILL)
            server.wait(TIMEOUT)
    with running("tests.unit.client.source.replay_app", str(port)):
        came = following.result()
    assert [event.id for event in came] == [str(number) for number in range(1, COUNT + 1)]
    assert [event.data for event in came] == [f"event {number}" for number in range(1, COUNT + 1)]
    assert {"ConnectFailed", "ConnectionLost"} == set(log.names)
    assert source.last_event_id == str(COUNT)


SITUATIONS = {
    "reading": (Answer().event("one").stall(), "event one"),
    "waiting": (Answer(503, retry_after=60), "waits 60"),
    "connecting": ([HOLD], None),
    "reading an error": (Answer(404, framing="chunked").raw("x").stall(), None),
}


@contextmanager
def following(name: str, serve: Callable[..., FakeSSEServer], mode: str) -> Iterator[subprocess.Popen[str]]:
    """A process that follows a stream, in one of the situations."""
    answer, sign = SITUATIONS[name]
    server = serve(in_turn(answer))
    with running("tests.unit.client.source.follower", server.url, mode) as process:
        server.wait_for_requests(1)
        if sign is not None:
            lines(process, sign)
        yield process


@pytest.mark.parametrize("name", SITUATIONS)
def test_ctrl_c_ends_the_main_thread_at_once(name: str, serve: Callable[..., FakeSSEServer]) -> None:
    with following(name, serve, "Ctrl-C") as process:
        process.send_signal(signal.SIGINT)
        output = lines(process, "threads 1")
        assert output[-3:] == ["interrupted", "state closed", "threads 1"]
        assert process.wait(TIMEOUT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("name", ["reading", "waiting", "connecting"])
def test_a_signal_handler_may_close(name: str, serve: Callable[..., FakeSSEServer]) -> None:
    with following(name, serve, "close on SIGTERM") as process:
        process.send_signal(signal.SIGTERM)
        assert lines(process, "threads 1")[-3:] == ["over", "state closed", "threads 1"]
        assert process.wait(TIMEOUT) == 0


def test_a_forked_process_that_closes_does_not_cut_its_parents_stream(serve: Callable[..., FakeSSEServer]) -> None:
    forked = [threading.Event(), threading.Event()]
    answer = Answer().event("one").wait_for(forked[0]).event("two").wait_for(forked[1])
    server = serve(in_turn(answer))
    with running("tests.unit.client.source.follower", server.url, "fork") as process:
        for event in forked:
            lines(process, "child ended")
            event.set()
        assert lines(process, "threads 1") == ["error StreamEnded", "waits 0", "over", "state closed", "threads 1"]
        with suppress(subprocess.TimeoutExpired):
            process.wait(TIMEOUT)
    assert len(server.requests) == 2
