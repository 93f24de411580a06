"""Draining, and what a signal does."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import ssesync
from ssesync import Event, EventStream, StreamClosed, Writer, drain, drain_on_signal
from ssesync.server.registry import streams

from .draining import undo_drain
from .test_mailbox import Running
from .test_stream import environ


@pytest.fixture(autouse=True)
def before_and_after() -> Iterator[None]:
    """What is drained are the process's streams: so none of another test may be left, and none refused after."""
    gc.collect()
    for stream in streams.all():
        stream.close()
    yield
    undo_drain()


def served(source: Any = None, *, accept: str = "text/event-stream", **options: Any) -> EventStream:
    """A stream that a browser's EventSource is served with, unless it accepts more."""
    stream = EventStream(Writer() if source is None else source, **options)
    assert stream.open(environ(HTTP_ACCEPT=accept)) == "200 OK"
    assert next(stream).endswith(b"\n")
    return stream


def test_drain_ends_each_stream_with_pending_writes_the_last_event_and_a_reconnection_time() -> None:
    writer = Writer()
    stream = served(writer)
    writer.write("waits")
    drain(Event("bye", type="farewell"))
    rest = b"".join(stream)
    assert re.fullmatch(rb"data: waits\n\nevent: farewell\ndata: bye\n\nretry: \d+\n", rest)
    assert stream.reason == "shutdown"
    with pytest.raises(StreamClosed, match="shutdown"):
        writer.write("too late")


def test_drain_wakes_a_server_that_waits_and_sets_the_token() -> None:
    writer = Writer()
    stream = served(writer, keep_alive=60)
    serving = Running(lambda: list(stream))
    assert serving.blocked()
    drain()
    [last] = serving.join()
    assert last.startswith(b"retry: ")
    assert writer.cancelled.reason == "shutdown"
    assert stream.closed


def test_reconnection_times_lie_between_the_streams_own_and_twice_that() -> None:
    opened = [served(retry=1000) for _ in range(30)]
    drain()
    times = {int(b"".join(stream)[len(b"retry: ") : -1]) for stream in opened}
    assert all(1000 <= time <= 2000 for time in times)
    assert len(times) > 10


def test_nothing_is_admitted_from_then_on() -> None:
    drain()
    stream = EventStream(["x"])
    assert stream.open(environ(HTTP_ACCEPT="text/event-stream")) == "200 OK"
    assert b"".join(stream).startswith(b"retry: ")
    assert stream.closed


@pytest.mark.parametrize("request_", [{}, {"REQUEST_METHOD": "POST", "HTTP_ACCEPT": "text/event-stream"}])
def test_a_client_that_is_no_event_source_is_not_given_an_answer_without_events(request_: dict[str, str]) -> None:
    drain()
    stream = EventStream(["x"])
    assert stream.open(environ(**request_)) == "503 Service Unavailable"
    assert "Retry-After" in dict(stream.headers)


def test_to_drain_again_does_nothing_more() -> None:
    stream = served()
    drain(Event("once"))
    drain(Event("twice"))
    assert b"".join(stream).count(b"data:") == 1


def test_a_stream_that_must_finish_goes_on_until_drain_timeout() -> None:
    writer = Writer()
    stream = served(writer, drain="finish", drain_timeout=0.7)
    drain()
    writer.write("more")
    assert next(stream) == b"data: more\n\n"
    assert b"".join(stream).startswith(b"retry: ")
    assert stream.reason == "shutdown"


def test_a_stream_that_must_finish_and_does_ends_as_ever() -> None:
    writer = Writer()
    stream = served(writer, drain="finish")
    drain()
    writer.write("all")
    writer.close()
    assert b"".join(stream) == b"data: all\n\n"
    assert stream.reason == "done"


def test_without_time_to_finish_it_ends_at_once() -> None:
    stream = served(drain="finish", drain_timeout=0)
    drain()
    assert b"".join(stream).startswith(b"retry: ")


def test_drain_may_be_called_with_nothing_open() -> None:
    drain()
    assert streams.stopping


def test_outside_of_the_main_thread_no_handler_is_set() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert Running(drain_on_signal).join() is False
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_that_was_there_is_called_and_ours_set_once() -> None:
    calls = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: calls.append(signum))
    on_tick = streams.on_tick
    try:
        assert drain_on_signal(signal.SIGUSR1) is True
        ours = signal.getsignal(signal.SIGUSR1)
        assert drain_on_signal(signal.SIGUSR1) is True
        assert signal.getsignal(signal.SIGUSR1) is ours
        stream = served()
        signal.raise_signal(signal.SIGUSR1)
        assert calls == [signal.SIGUSR1]
        assert b"".join(stream).startswith(b"retry: ")
    finally:
        signal.signal(signal.SIGUSR1, before)
        streams.on_tick = on_tick


def test_a_signal_that_was_ignored_drains_and_goes_on() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    on_tick = streams.on_tick
    try:
        drain_on_signal(signal.SIGUSR1)
        stream = served()
        signal.raise_signal(signal.SIGUSR1)
        assert b"".join(stream).startswith(b"retry: ")
    finally:
        signal.signal(signal.SIGUSR1, before)
        streams.on_tick = on_tick


def test_signals_in_the_middle_of_anything_block_nothing() -> None:
    """The main thread may hold any of our locks when one comes."""
    calls = []
    before = signal.signal(signal.SIGVTALRM, lambda signum, frame: calls.append(signum))
    on_tick = streams.on_tick
    try:
        drain_on_signal(signal.SIGVTALRM)
        served()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
        while len(calls) < 100:
            streams.stopping = False
            stream = EventStream(Writer())
            stream.open(environ())
            streams.snapshot()
            stream.close()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        streams.on_tick = on_tick


# A shell that starts the tests in the background has them, and all they start, ignore these two.
AS_IN_THE_FOREGROUND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_IN_THE_FOREGROUND + code], capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT"])
def test_a_process_without_streams_is_terminated_by_the_signal_at_once(name: str) -> None:
    done = run(f"""
import signal, ssesync
ssesync.drain_on_signal()
signal.raise_signal(signal.{name})
signal.pause()
""")
    assert done.returncode == -getattr(signal, name), done.stderr


def test_the_interrupt_is_a_keyboard_interrupt_as_ever() -> None:
    done = run("""
import signal, ssesync
ssesync.drain_on_signal()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
""")
    assert done.stdout == "interrupted\n", done.stderr


def test_a_signal_that_is_ignored_goes_on_being_ignored() -> None:
    done = run("""
import ssesync
signal.signal(signal.SIGINT, signal.SIG_IGN)
ssesync.drain_on_signal()
signal.raise_signal(signal.SIGINT)
print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, ssesync.streams.stopping)
""")
    assert done.stdout == "True False\n", done.stderr


def test_a_process_is_terminated_by_the_signal_after_the_calls_for_its_streams_but_for_one_that_hangs() -> None:
    done = run("""
import os, signal, threading, time, ssesync
from ssesync.executor import callers
ssesync.drain_on_signal()
stream = ssesync.EventStream(ssesync.Writer())
stream.open({"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/event-stream"})
callers().submit(threading.Event().wait)
for number in range(8):  # on the threads that are left
    callers().submit(lambda number=number: (time.sleep(0.1), os.write(1, b"%d " % number)))
signal.raise_signal(signal.SIGTERM)
b"".join(stream)
stream.close()
signal.pause()
""")
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert sorted(done.stdout.split()) == [str(number) for number in range(8)]


def test_a_process_with_streams_is_terminated_by_the_signal_after_their_end() -> None:
    done = run("""
import signal, sys, time, ssesync
ssesync.drain_on_signal()
stream = ssesync.EventStream(ssesync.Writer())
stream.open({"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/event-stream"})
signal.raise_signal(signal.SIGTERM)
print(b"".join(stream)[:11].decode(), flush=True)
time.sleep(20)
print("still there")
""")
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout.startswith(":ok\nretry: ")
    assert "still there" not in done.stdout


def test_the_public_names_are_the_ones_that_are_meant() -> None:
    assert ssesync.streams is streams
