"""The event loop of a process: in a forked child, at the interpreter's exit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator

import pytest

from ssesync import EventStream, from_async
from ssesync.greenlets import threads_are_greenlets
from ssesync.locks import Once
from ssesync.server.event_loop import EventLoop, event_loop
from ssesync.server.stream import join_producer

#: An endless stream, which is left open.
SCRIPT = """
import asyncio, os, sys
import ssesync

async def endless():
    try:
        yield "one"
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.01)
        print("closed", flush=True)

def open_one():
    stream = ssesync.EventStream(ssesync.from_async(endless))
    stream.open({})
    chunks = iter(stream)
    assert [next(chunks), next(chunks)] == [b":ok\\n", b"data: one\\n\\n"]
    return stream

"""


def run(script: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", SCRIPT + script], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


@pytest.mark.slow
def test_the_interpreters_exit_closes_what_producers_have_open() -> None:
    assert run("stream = open_one()") == ["closed"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    script = """
stream = open_one()
sys.stdout.flush()
if not (pid := os.fork()):
    stream.cancel()
    own = open_one()
    own.close()
    from ssesync.server.stream import join_producer
    assert join_producer(own, 30)
    print("child", flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent", flush=True)
another = open_one()
"""
    assert run(script) == ["closed", "child", "parent", "closed", "closed"]


@pytest.mark.slow
def test_a_producer_that_blocks_the_loop_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A loop warns once, and an earlier test on a busy machine may have had it do so.
    monkeypatch.setattr(event_loop(), "_warned", Once())
    go = threading.Event()

    async def blocking() -> AsyncIterator[str]:
        yield "one"
        go.wait(90)

    stream = EventStream(from_async(blocking))
    stream.open({})
    deadline = time.monotonic() + 90
    while "a producer has blocked the event loop" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    go.set()
    line = blocking.__code__.co_firstlineno + 2
    assert threads_are_greenlets() or f"now at {__file__}:{line}, and 1" in caplog.text
    assert "and 1 asynchronous producers wait" in caplog.text
    stream.close()
    assert join_producer(stream, 30)


def test_without_a_thread_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = EventLoop()
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", _refuse)
        with pytest.raises(RuntimeError, match="event-loop"):
            loop.require_thread()
    loop.close()


def test_a_process_has_one() -> None:
    assert event_loop() is event_loop()


def _refuse(self: object) -> None:
    raise RuntimeError("can't start new thread")
