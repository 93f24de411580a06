"""A gateway to another server, and the server that makes the streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ssesync import Event, EventStream, Writer
from tests.apps.relays import OPTIONS, relay_to

from . import in_json

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_lock = threading.Lock()
#: How much :func:`silent` has produced, and the ends of its streams.
produced = 0
closed: list[tuple[str, float]] = []


def silent(writer: Writer) -> None:
    """Produce all the time, and send once."""
    global produced
    writer.write_event("begun")
    while not writer.cancelled.wait(0.01):
        with _lock:
            produced += 1


def many() -> Iterator[Event]:
    for number in range(5_000):
        yield Event(f"token {number}\nü", id=number, type="token" if number % 3 else None, comment="c" * (number % 5))


def note_end(reason: str, stats: object) -> None:
    closed.append((str(reason), time.monotonic()))


def origin(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/silent":
        return EventStream.from_writer(silent, on_close=note_end, **OPTIONS)(environ, start_response)
    if path == "/many":
        return EventStream(many, **OPTIONS)(environ, start_response)
    return in_json({"error": "no key"}, "401 Unauthorized")(environ, start_response)


def relay(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return EventStream(relay_to(environ, environ["PATH_INFO"]), **OPTIONS)(environ, start_response)
