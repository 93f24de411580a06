"""Served by its server's thread and by the reactor, a stream is the same to its client, byte for byte.

Each seed makes a script: what a producer does, how it ends, what kind of request asks for it, and how its client reads.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from ssesync import CloseReason, Event, EventStream, StreamClosed, StreamStats, Writer, streams

from .small_server import TIMEOUT, Answer, SmallServer

SCRIPTS, AT_A_TIME = 240, 24
RETRY = re.compile(rb"retry: (\d+)\n$")


@dataclass
class Script:
    """What happens in one stream."""

    kind: str
    steps: list[tuple[str, Any]]
    chunked: bool
    environ: dict[str, Any]
    options: dict[str, Any]
    #: Bytes after which the client sleeps, and for how long.
    reads: tuple[int, float]

    @classmethod
    def of(cls, seed: int) -> Script:
        rng = random.Random(seed)
        steps = [cls._step(rng) for _ in range(rng.choice([0, 1, 2, 5, 12]))]
        end = rng.choice(["return", "return", "raise", "finish", "close", "stop", "cancel"])
        if end == "raise":
            steps.insert(0, ("event", 1))  # else it may be the view that raises
        steps += [("mark", rng.random()), (end, rng.random())] if end == "cancel" else [(end, rng.random())]
        environ = {"REQUEST_METHOD": rng.choice(["GET", "GET", "POST"])}
        if rng.random() < 0.4:
            environ["HTTP_ACCEPT"] = "text/event-stream"
        options: dict[str, Any] = {"keep_alive": None}
        for name, values in {
            "first_event_timeout": [0, 0.001, 0.05],
            "resumable": ["auto", "auto", True, False],
            "max_pending_events": [1, 3, 256],
            "max_pending_bytes": [1, 5000, 2**20],
            "error_event": [None, Event("oh", type="trouble"), lambda error: Event(type(error).__name__)],
            "retry": [None, 50],
            "padding": [0, 100],
        }.items():
            options[name] = rng.choice(values)
        reads = rng.choice([(2**30, 0.0), (2**30, 0.0), (8192, 0.001), (100, 0.002)])
        return cls(rng.choice(["generator", "writer", "caller"]), steps, rng.random() < 0.7, environ, options, reads)

    @staticmethod
    def _step(rng: random.Random) -> tuple[str, Any]:
        kind = rng.choice(["event", "event", "event", "id", "comment", "batch", "burst", "silence", "large", "mark"])
        return kind, rng.choice([1, 2, 3, 10, 40])


@dataclass
class Run:
    """A script that is run once, served or detached."""

    script: Script
    detach: bool
    reasons: list[tuple[CloseReason, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._server: SmallServer | None = None
        self._received = b""
        self._bytes = 0

    def __call__(self) -> tuple[Any, ...]:
        self._server = SmallServer(self._make, chunked=self.script.chunked, **self.script.environ)
        answer = self._server.read(self._pace)
        stream = self._server.stream
        assert stream is not None
        assert self._ended.wait(TIMEOUT), "on_close was not called"
        assert (stream._detached is not None) is self.detach
        return self._normal(answer)

    def _normal(self, answer: Answer) -> tuple[Any, ...]:
        assert self._bytes == len(answer.body)
        found = RETRY.search(answer.body)
        body = answer.body
        if found is not None:
            least = self.script.options["retry"] or 2000
            assert least <= int(found[1]) <= 2 * least
            body = body[: found.start()]
        head = [line for line in answer.head.split(b"\r\n") if not line.startswith(b"Connection:")]
        return head, body, found is not None, answer.complete, answer.reset, self.reasons

    def _pace(self, received: bytes) -> None:
        self._received = received
        after, seconds = self.script.reads
        if len(received) > after:
            time.sleep(seconds)

    def _make(self) -> EventStream:
        options = {**self.script.options, "on_close": self._note, "detach": "auto" if self.detach else False}
        if self.script.kind == "generator":
            return EventStream(self._generate, **options)
        if self.script.kind == "writer":
            return EventStream.from_writer(self._write, **options)
        writer = Writer()
        threading.Thread(target=self._write_as_caller, args=(writer,)).start()
        return EventStream(writer, **options)

    def _note(self, reason: CloseReason, stats: StreamStats) -> None:
        self.reasons.append((reason, stats.events))
        self._bytes = stats.bytes
        self._ended.set()

    def _generate(self) -> Iterator[Any]:
        for kind, count in self.script.steps:
            if kind in ("event", "batch", "burst"):
                yield from (f"{kind} {number}" for number in range(count))
            elif kind == "id":
                yield Event("some data", id=str(count), type="numbered")
            elif kind == "large":
                yield "x" * (count * 5000)
            elif kind == "comment":
                yield Event(comment="nothing")
            elif kind == "finish":
                yield Event("", type="done")
                return
            elif kind == "mark":
                yield f"mark {count}"
                wait_until(lambda count=count: b"mark %r\n" % count in self._received)
            else:
                self._other(kind, count)

    def _write(self, writer: Writer) -> None:
        for kind, count in self.script.steps:
            if kind == "event":
                for number in range(count):
                    writer.write_event(f"event {number}")
            elif kind == "batch":
                with writer.batch():
                    for number in range(count):
                        writer.write(f"batch {number}\nwith lines")
            elif kind == "burst":
                writer.write_raw(b"".join(b"data: %d\n\n" % number for number in range(count)), events=count)
            elif kind == "id":
                writer.write_event("numbered", id=count)
            elif kind == "large":
                writer.write("y" * (count * 5000))
            elif kind == "comment":
                writer.write_comment("nothing")
            elif kind == "finish":
                writer.finish("over", id="last")
            elif kind == "close":
                writer.close()
            elif kind == "mark":
                writer.write(f"mark {count}")
                wait_until(lambda count=count: b"mark %r\n" % count in self._received)
            else:
                self._other(kind, count)

    def _write_as_caller(self, writer: Writer) -> None:
        try:
            self._write(writer)
        except (StreamClosed, LookupError):
            pass
        writer.close()

    def _other(self, kind: str, count: float) -> None:
        if kind == "silence":
            time.sleep(count / 4000)
        elif kind == "raise":
            raise LookupError("a secret")
        elif kind == "stop":
            last = b"data: last\n\n" if count < 0.7 else b""
            self._stream.stop("lifetime" if count < 0.5 else "shutdown", last)
        elif kind == "cancel":
            self._stream.cancel("revoked" if count < 0.5 else "cancelled")

    @property
    def _stream(self) -> EventStream:
        """The stream, once it can be ended."""
        wait_until(lambda: self._server is not None and self._server.stream is not None)
        assert self._server is not None
        stream = self._server.stream
        assert stream is not None
        wait_until(lambda: stream._source is not None)
        return stream


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("first", range(0, SCRIPTS, AT_A_TIME))
def test_served_and_detached_are_the_same(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssesync.server.leaving._REST", -1)
    monkeypatch.setattr(streams, "stopping", False)
    scripts = [Script.of(seed) for seed in range(first, first + AT_A_TIME)]
    with ThreadPoolExecutor(8) as executor:
        runs = [executor.submit(Run(script, detach)) for script in scripts for detach in (False, True)]
        results = [run.result() for run in runs]
    for script, served, detached in zip(scripts, results[::2], results[1::2], strict=True):
        assert served == detached, script
