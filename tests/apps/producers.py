"""What the applications stream. Nothing here knows of a framework."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssesync import CloseReason, Event, StreamClosed, StreamStats, Writer

from . import facts
from .line import Line

#: What no client may get to see.
SECRET = "the password is swordfish"

#: Threads and events of each in ``crowd``.
THREADS, EACH = 4, 150

#: The options of a stream of which each address may have one.
ONE_PER_ADDRESS: dict[str, Any] = {"max_streams_per_key": 1, "max_streams": None}

Answer = Callable[[], dict[str, Any]]


def gate(line: int, key: str = "", answers: dict[str, Answer] | None = None) -> Iterator[Event]:
    """Yield what the test says, when it says it."""
    facts.note(key, "started")
    thread = threading.get_ident()
    with Line.call(line) as test:
        try:
            test.say(started=key)
            for order in test:
                if "event" in order:
                    yield Event(**order["event"])
                elif order["do"] == "fail":
                    raise RuntimeError(SECRET)
                elif order["do"] == "end":
                    return
                else:
                    test.say(**(answers or {})[order["do"]]())
        except GeneratorExit:
            test.say(closed=key, own_thread=threading.get_ident() == thread)
            raise


def gate_writer(w: Writer, line: int, key: str = "") -> None:
    """``gate`` for an imperative view."""
    facts.note(key, "started")
    with Line.call(line) as test:
        test.say(started=key)
        for order in test:
            if order.get("do") == "end":
                return
            try:
                w.write_event(**order["event"])
            except StreamClosed as error:
                test.say(stream_closed=error.reason)
                raise


def report_close(line: int, key: str) -> Callable[[CloseReason, StreamStats], None]:
    """An ``on_close`` that calls the test."""

    def on_close(reason: CloseReason, stats: StreamStats) -> None:
        facts.note(key, "on_close", reason)
        with Line.call(line) as test:
            test.say(on_close=reason, events=stats.events)

    return on_close


def ticks(count: int = 3) -> Iterator[Event]:
    for number in range(count):
        yield Event(str(number), type="tick", id=number)


def failing() -> Iterator[Event]:
    raise RuntimeError(SECRET)
    yield Event("never")


def flood(line: int, count: int, size: int) -> Iterator[Event]:
    """Many large events; the test is told of each before it is yielded."""
    with Line.call(line) as test:
        for number in range(count):
            test.say(number=number)
            yield Event(flood_data(number, size))


def flood_data(number: int, size: int) -> str:
    start = f"{number}:"
    return start + chr(ord("a") + number % 26) * (size - len(start))


def crowd(writer: Writer) -> Writer:
    """Threads that all write with one writer, which the last of them closes."""
    done = threading.Semaphore(0)

    def write(thread: int) -> None:
        for number in range(EACH):
            data = crowd_data(thread, number)
            if number % 10 == 9:
                with writer.batch():
                    writer.write_event(data, type="half")
                    writer.write_event(data, type="half")
            else:
                writer.write_event(data, type="whole", id=f"{thread}-{number}")
        done.release()

    def close() -> None:
        for _ in range(THREADS):
            done.acquire()
        writer.close()

    for thread in range(THREADS):
        threading.Thread(target=write, args=(thread,), daemon=True).start()
    threading.Thread(target=close, daemon=True).start()
    return writer


def crowd_data(thread: int, number: int) -> str:
    """Some lines, of a length that tells the event from all others."""
    return json.dumps([thread, number]) + "\nü" * (number % 7) + "x" * (number * 13 % 977)


def silence(*args: Any) -> Iterator[str]:
    """One event, and then nothing for a minute."""
    yield "first"
    time.sleep(60)
