"""The event loop of a process: in a forked child, at the interpreter's exit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ssesync.server.event_loop import EventLoop, event_loop

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
