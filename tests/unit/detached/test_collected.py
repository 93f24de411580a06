"""Streams that are dropped without a word: they are ended by whoever collects them, wherever that thread is."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc, socket, threading
import ssesync
from ssesync import EventStream
from ssesync.server.registry import streams
from ssesync.reactor import reactor

ours, theirs = socket.socketpair()
broker = ssesync.open_broker("memory://")

def drop():
    stream = EventStream(broker.subscribe("news"), detach=False)
    assert stream.open({"REQUEST_METHOD": "GET", "REMOTE_ADDR": "x", "gunicorn.socket": ours}) == "200 OK"
    stream.itself = stream

def collect():
    with LOCK:
        gc.collect()
    done.set()

gc.disable()
drop()
assert len(streams.all()) == 1
done = threading.Event()
threading.Thread(target=collect, daemon=True).start()
assert done.wait(90)
assert not streams.all()
"""


@pytest.mark.parametrize("lock", ["streams._lock", "reactor()._lock"])
def test_a_thread_that_holds_a_lock_may_collect_a_stream(lock: str):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("LOCK", lock)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
