"""What a process is short of, for a moment: descriptors, threads. And a log that looks back at who writes to it."""

from __future__ import annotations

import subprocess
import sys

BEGIN = """
import logging, resource, socket, threading
import ssesync
from ssesync import EventStream
from ssesync.server.registry import streams
from ssesync.reactor import reactor

broker = ssesync.open_broker("memory://")

def open_stream(**options):
    stream = EventStream(broker.subscribe("news"), **options)
    return stream, stream.open({"REQUEST_METHOD": "GET", "REMOTE_ADDR": "x"})
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGIN + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_stream_that_there_are_no_descriptors_for_takes_no_place():
    run("""
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
for _ in range(3):
    try:
        open_stream(max_streams=1)
    except OSError:
        pass
    else:
        raise AssertionError("there was a descriptor")
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
stream, status = open_stream(max_streams=1)
assert status == "200 OK", status
stream.close()
""")


def test_a_reactor_without_a_thread_gets_one_as_soon_as_there_is_one():
    log = run("""
def fail(self):
    raise RuntimeError("can't start new thread")

ours, theirs = socket.socketpair()
gone, ticks = threading.Event(), threading.Event()
start, threading.Thread.start = threading.Thread.start, fail
for _ in range(2):
    reactor().watch(ours.fileno(), gone.set)
reactor().every_tick(lambda: bool(ticks.set()))
threading.Thread.start = start
for _ in range(2):
    reactor()
assert [thread.name for thread in threading.enumerate()].count("ssesync-reactor") == 1
assert ticks.wait(90)
theirs.close()
assert gone.wait(90)
""")
    assert log.count("can't start new thread") == 1


def test_a_logging_handler_may_read_the_streams_when_the_limit_is_logged():
    run("""
class Curious(logging.Handler):
    def emit(self, record):
        other = threading.Thread(target=lambda: seen.append(streams.snapshot()), daemon=True)
        other.start()
        other.join(90)

seen = []
logging.getLogger("ssesync").addHandler(Curious())
stream = EventStream(broker.subscribe("news"), max_detached=1)
other = EventStream(broker.subscribe("news"), max_detached=1)
assert streams.admit(stream, "x", stream._tick, detached=True)
assert not streams.admit(other, "x", other._tick, detached=True)
assert [each["refused"] for each in seen] == [1]
""")
