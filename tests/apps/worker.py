"""What the workers of subscriptions have beside their streams, with Flask and Django: ordinary responses, publishing,
what the process holds, and ways of disturbing it."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import ssesync
from ssesync import Broker, CloseReason, StreamStats
from ssesync.channels.subscriber import Subscriber
from tests.apps.line import Line

from .texts import KINDS_OF_EVENTS, echo, event_data, number_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Query = dict[str, str]

#: Why streams ended, by the key that the test gave them.
reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)


def noting(key: str, line: str | None = None) -> Callable[[CloseReason, StreamStats], object]:
    """An ``on_close`` that notes the reason, and waits for the test where there is a line to it."""

    def note(reason: CloseReason, stats: StreamStats) -> None:
        reasons[key].update([reason.value])
        logging.getLogger("tests").info("on_close: %s", reason.value)
        if line is not None:
            wait_for_the_test(int(line), "on_close")

    return note


def options_of(query: Query) -> dict[str, Any]:
    """Return the options of a stream: those of ``OPTIONS`` in the environment, and those of the query."""
    options: dict[str, Any] = {**json.loads(os.environ.get("OPTIONS", "{}")), **json.loads(query.get("options", "{}"))}
    if options.get("overflow") == "coalesce":
        options["coalesce"] = lambda event: number_of(event.data or "") % KINDS_OF_EVENTS
    return options


class Waiting:
    """An answer that is passed on, and waits for the test at one stage of that."""

    def __init__(self, body: Iterable[bytes], stage: str, line: int) -> None:
        self._body = body
        self._pieces = iter(body)
        self._stage = stage
        self._line = line
        self._steps = 0

    def _at(self, stage: str) -> None:
        if stage == self._stage:
            wait_for_the_test(self._line, stage)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._steps += 1
        self._at(f"before step {self._steps}")
        try:
            return next(self._pieces)
        except StopIteration:
            self._at("at the end")
            raise

    def close(self) -> None:
        self._at("before close")
        if hasattr(self._body, "close"):
            self._body.close()
        self._at("after close")


def wait_for_the_test(line: int, stage: str) -> None:
    """Say to the test where this is, and wait until it says to go on, or hangs up."""
    with Line.call(line) as test:
        test.say(at=stage, pid=os.getpid())
        test.hear()


class Worker:
    """Middleware that answers what is not a stream by itself."""

    def __init__(self, application: WSGIApplication, broker: Callable[[], Broker]) -> None:
        self._application = application
        self._broker = broker
        self._spinning = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        path = environ["PATH_INFO"]
        if path == "/events":
            return self._stream(query, environ, start_response)
        answer: bytes | str = getattr(self, f"_{path[1:]}")(query)
        body = answer if isinstance(answer, bytes) else answer.encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def _stream(self, query: Query, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "stage" not in query:
            return self._application(environ, start_response)
        stage, line = query["stage"], int(query["line"])
        if stage == "before headers":
            wait_for_the_test(line, stage)
        return Waiting(self._application(environ, start_response), stage, line)

    def _plain(self, query: Query) -> str:
        return "plain"

    def _echo(self, query: Query) -> bytes:
        return echo(int(query["number"]), int(query["size"]))

    def _publish(self, query: Query) -> str:
        """Publish in the very process that serves the streams; the ids."""
        first, count, size = (int(query.get(name, default)) for name, default in
                              (("first", "0"), ("count", "1"), ("size", "0")))  # fmt: skip
        broker, channel = self._broker(), query["channel"]
        return "\n".join(
            broker.publish(channel, event_data(channel, number, size)) for number in range(first, first + count)
        )

    def _flood(self, query: Query) -> str:
        """Publish large events in the very process that serves the streams; the seconds that it took."""
        first, count, size = (int(query[name]) for name in ("first", "count", "size"))
        broker, started = self._broker(), time.monotonic()
        for number in range(first, first + count):
            broker.publish("flood", f"{number} ".ljust(size, "x"))
        return json.dumps({"seconds": time.monotonic() - started})

    def _revoke(self, query: Query) -> str:
        self._broker().revoke(query["key"], query.get("channel"))
        return ""

    def _state(self, query: Query) -> str:
        gc.collect()
        snapshot = ssesync.streams.snapshot()
        state = {
            "worker": os.getpid(),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "subscriptions": sum(isinstance(thing, Subscriber) for thing in gc.get_objects()),
            "present": self._broker().subscriber_count(query["channel"]) if "channel" in query else 0,
            "reasons": reasons,
            "broker": self._broker().snapshot(),
            "most_pending": max((stream["pending_bytes"] for stream in snapshot["streams"]), default=0),
            **snapshot,
        }
        return json.dumps(state)

    def _block(self, query: Query) -> str:
        """Never answer."""
        while True:
            time.sleep(1)

    def _spin(self, query: Query) -> str:
        """Keep the processor, and the lock that Python has, busy until told otherwise."""
        self._spinning = query["on"] == "1"
        if self._spinning:
            threading.Thread(target=self._spin_on, daemon=True).start()
        return ""

    def _spin_on(self) -> None:
        number = 0
        while self._spinning:
            for _ in range(10_000):
                number = (number + 1) % 1_000_003

    def _fork(self, query: Query) -> str:
        """Have a child of this process, which the test leads."""
        line = int(query["line"])
        if query["how"] == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=_live, args=(line,), daemon=False)
            process.start()
            return str(process.pid)
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                _live(line)
            os._exit(0)
        return str(child)


def _live(line: int) -> None:
    """What a forked child does: says whom it is connected to, and ends as it is told."""
    peers = []
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name.name))) as sock:
            peers.append(sock.getpeername()[1] if sock.family == socket.AF_INET else 0)
    with Line.call(line) as test:
        test.say(pid=os.getpid(), peers=peers)
        for order in test:
            if order["do"] == "exit handlers":
                # As a child does that ends like any program.
                atexit._run_exitfuncs()
                test.say(done=True)
            if order["do"] == "drain":
                ssesync.drain()
                test.say(done=True, streams=len(ssesync.streams.snapshot()["streams"]))
