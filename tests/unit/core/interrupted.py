"""A process whose main thread is in the library all the time, and is interrupted at random moments by a signal whose
handler ends what it is in. It is given a scenario and a count. Exit status 0: every handler returned, and everything
ended by it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

from ssesync import (
    CancelToken,
    CloseReason,
    EventSource,
    EventStream,
    Reader,
    Settings,
    StreamClosed,
    Writer,
    drain,
    streams,
)
from ssesync.server.source import END, BlockingPull
from ssesync.testing import Answer, FakeSSEServer, live_stream, open_stream

# Seconds for all of it. What hangs shows where.
TIMEOUT = 45

Act = Callable[[], object]


def nothing() -> None:
    pass


class Interruptions:
    """Calls ``act`` in a signal handler, at a random moment of each :meth:`round`."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.act: Act = nothing
        self._random = random.Random(1)
        signal.signal(signal.SIGALRM, self._handle)

    def rounds(self, longest: float) -> Iterator[None]:
        """Begin rounds until there were enough: a signal comes within so many seconds."""
        while self.left > 0:
            self.act = nothing
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(0.00002, longest), 0.01)
            yield
            signal.setitimer(signal.ITIMER_REAL, 0)

    def one_of(self, *calls: Act) -> Act:
        return self._random.choice(calls)

    def _handle(self, *_: object) -> None:
        act, self.act = self.act, nothing
        if act is not nothing:
            self.left -= 1
        act()


def token(signals: Interruptions) -> None:
    for _ in signals.rounds(0.001):
        current, called = CancelToken(), list[str]()
        signals.act = current.set
        current.add_callback(functools.partial(called.append, "once"))
        while not current.is_set():
            current.add_callback(nothing)
            current.wait(0.0001)
            current.remove_callback(nothing)
        assert current.wait(60)
        assert called == ["once"]


def waiting_token(signals: Interruptions) -> None:
    for _ in signals.rounds(0.001):
        current = CancelToken()
        signals.act = current.set
        assert current.wait(60)


def writer(signals: Interruptions) -> None:
    for number, _ in enumerate(signals.rounds(0.001)):
        current = Writer(Settings(max_pending_events=100))
        stop = lambda writer=current: writer.stop(CloseReason.SHUTDOWN, b":last\n")  # noqa: E731
        signals.act = signals.one_of(current.close, current.cancel, stop)
        if number % 2:
            with contextlib.suppress(StreamClosed):
                while True:
                    current.write("waits for room in the end")
        else:
            pull = BlockingPull(current.as_source())
            if pull.pull(100, 60) == b":last\n":
                assert pull.pull(100, 60) is END
        assert current.closed


def draining(signals: Interruptions) -> None:
    def produce(writer: Writer) -> None:
        writer.write("x")
        writer.cancelled.wait(60)

    for _ in signals.rounds(0.004):
        current = EventStream.from_writer(produce, keep_alive=60, resumable=True)
        signals.act = drain
        current.open()
        for _chunk in current:
            pass
        current.close()
        streams.stopping = False
    found = streams.snapshot()
    assert found["opened"] == sum(found["closed"].values()) > 0, found
    assert not streams.all()


def stream(signals: Interruptions) -> None:
    def produce(writer: Writer) -> None:
        with contextlib.suppress(StreamClosed):
            while True:
                writer.write("x" * 100)

    for number, _ in enumerate(signals.rounds(0.004)):
        options: dict[str, Any] = {"keep_alive": 60, "first_event_timeout": 0, "resumable": True}
        current = EventStream.from_writer(produce, **options)
        if not number % 4:
            current = EventStream(iter(lambda: "x", None), threaded=False, **options)
        signals.act = signals.one_of(current.cancel, current.stop, current.close)
        try:
            current.open()
        except RuntimeError:
            assert current.closed  # before it was opened
        for _chunk in current:
            pass
        current.close()
        assert current.closed
    found = streams.snapshot()
    assert found["opened"] == sum(found["closed"].values()) > 0, found


def reader(signals: Interruptions) -> None:
    with FakeSSEServer(Answer().event("one").stall()) as server, requests.Session() as session:
        for _ in signals.rounds(0.01):
            current = Reader(session.get(server.url, stream=True))
            signals.act = signals.one_of(current.cancel, current.close)
            for _event in current:
                pass
            current.close()


def source(signals: Interruptions) -> None:
    with FakeSSEServer(Answer().event("one").stall()) as server:
        for _ in signals.rounds(0.02):
            current = EventSource(server.url)
            signals.act = signals.one_of(current.close, current.cancel)
            try:
                events = iter(current)
            except RuntimeError:
                assert current.state == "closed"  # before it was iterated
                continue
            for _event in events:
                pass
            current.close()
            assert current.state == "closed"


def kit(signals: Interruptions) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        return EventStream(forever)(environ, start_response)

    def forever() -> Iterator[str]:
        while True:
            yield "x"
            time.sleep(0.001)

    for number, _ in enumerate(signals.rounds(0.03)):
        open_it = live_stream if number % 4 == 3 else open_stream
        with open_it(application, timeout=30) as current:
            signals.act = signals.one_of(current.close, current.disconnect)
            for _event in current:
                pass


def fake_server(signals: Interruptions) -> None:
    for _ in signals.rounds(0.01):
        current = FakeSSEServer().start()
        signals.act = current.close
        while current._listener is not None:
            current.answer().event("one")
            with contextlib.suppress(Exception):
                requests.get(current.url, timeout=0.01)
        current.close(quiet=True)


SCENARIOS: dict[str, Callable[[Interruptions], None]] = {
    each.__name__: each for each in (token, waiting_token, writer, draining, stream, reader, source, kit, fake_server)
}

if __name__ == "__main__":
    faulthandler.dump_traceback_later(TIMEOUT, exit=True)
    logging.getLogger("ssesync").setLevel(logging.ERROR)
    threading.excepthook = lambda args: sys.exit(f"a thread failed: {args.exc_value!r}")
    SCENARIOS[sys.argv[1]](Interruptions(int(sys.argv[2])))
    print("done")
