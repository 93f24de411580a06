"""Streams by the query: ``do`` is the producer, ``options`` are those of the stream, as JSON, and ``line`` is the port
that the test listens on, if the producer and ``on_close`` are to call it.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ssesync import CloseReason, EventStream, StreamClosed, StreamStats, Writer
from tests.apps import facts
from tests.apps.line import TIMEOUT, Line

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Query = dict[str, str]
Tell = Callable[..., None]


def idle(w: Writer, query: Query, tell: Tell) -> None:
    """One event, then silence until the stream is cancelled."""
    w.write_event("first")
    tell(pid=os.getpid())
    cancelled = w.cancelled.wait(TIMEOUT)
    try:
        w.write_event("too late")
        closed = None
    except StreamClosed as error:
        closed = error.reason
    tell(cancelled=cancelled and w.cancelled.reason, closed=closed)


def flood(w: Writer, query: Query, tell: Tell) -> None:
    """Writes until the client takes no more, and then some; says each time before it does."""
    tell(pid=os.getpid())
    try:
        while True:
            tell(writes=True)
            w.write_event("x" * 60_000)
    except StreamClosed as error:
        tell(closed=error.reason)


def led(w: Writer, query: Query, tell: Tell) -> None:
    """Writes what the test says, when it says it."""
    with Line.call(int(query["line"])) as test:
        test.say(pid=os.getpid())
        for order in test:
            if order.get("do") == "end":
                return
            if order.get("do") == "raise":
                raise RuntimeError(order["text"])
            if order.get("do") == "cancel":
                w.cancel()
                return
            if order.get("do") == "threads":
                test.say(threads=[thread.name for thread in threading.enumerate()])
                continue
            w.write_event(order["event"], id=order.get("id"))


def count(w: Writer, query: Query, tell: Tell) -> None:
    """Numbers, a few milliseconds apart, with enough in each to need many sends."""
    for number in range(int(query["count"])):
        w.write_event(f"{number} " + "n" * 2_000)
        if w.cancelled.wait(0.005):
            return


def chaos(w: Writer, query: Query, tell: Tell) -> None:
    """Anything: bursts, pauses, silence, an error, an end."""
    dice = random.Random(int(query["seed"]))
    for _ in range(dice.randrange(30)):
        what = dice.random()
        if what < 0.05:
            raise RuntimeError("chaos")
        if what < 0.3:
            w.write_event("x" * dice.randrange(400_000))
        elif what < 0.9:
            w.write_event("y")
        if w.cancelled.wait(dice.choice([0, 0, 0.005, 0.03])):
            return


def ended(w: Writer, query: Query, tell: Tell) -> None:
    """Ends at once, with more than the client's connection takes; the rest is dropped when the test says so."""
    for _ in range(1_000):
        w.write_event("x" * 60_000)

    def cancel() -> None:
        with Line.call(int(query["line"])) as test:
            while not w.closed:
                time.sleep(0.005)
            test.say(reason=w.reason, pending=w.pending)
            test.hear()
            w.cancel()
            test.say(reason=w.reason)

    threading.Thread(target=cancel, daemon=True).start()


PRODUCERS = {function.__name__: function for function in (idle, flood, led, count, chaos, ended)}


def make_stream(environ: WSGIEnvironment) -> Any:
    """The source and the options that the query asks for."""
    query = facts.query(environ)
    line = int(query["line"]) if "line" in query else None
    options = json.loads(query.get("options", "{}"))
    calls: list[Line] = []

    def tell(**message: Any) -> None:
        if line is not None:
            if not calls:
                calls.append(Line.call(line))
            calls[0].say(**message)

    def produce(w: Writer) -> None:
        try:
            PRODUCERS[query.get("do", "idle")](w, query, tell)
        finally:
            for call in calls:
                call.close()

    def on_close(reason: CloseReason, stats: StreamStats) -> None:
        if line is not None:
            with Line.call(line) as test:
                test.say(
                    on_close=reason, events=stats.events, bytes=stats.bytes, keep_alives=stats.keep_alives,
                    senses=stream.senses_disconnect,
                )  # fmt: skip

    stream = EventStream.from_writer(produce, on_close=on_close, name=environ["PATH_INFO"], **options)
    return stream


def serve_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if "hide" in facts.query(environ):
        # As behind a server that nobody knows.
        known = ("gunicorn.", "werkzeug.", "waitress.", "uwsgi.")
        environ = {name: value for name, value in environ.items() if not name.startswith(known)}
    stream = make_stream(environ)
    start_response(stream.open(environ), stream.headers)
    return stream  # type: ignore[no-any-return]
