"""Streams that a worker lets finish.

``/answer`` writes the event ``begun``, waits until the test makes the file ``go``, and then writes the rest: ``EVENTS``
numbers, made as ``do`` says, and ``done``. ``/subscription`` sends the same, published by a thread of the process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssesync
from ssesync import EventStream
from tests.apps import facts
from tests.apps.process import log_to_stderr
from tests.http_client import TIMEOUT

from . import text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log_to_stderr()

EVENTS = 5
GO = Path(os.environ.get("TESTS_DATABASE", "none")).with_name("go")
CHANNEL = "answers"
KEY = "all"

pool = ThreadPoolExecutor(4)
broker = ssesync.open_broker("memory://")
_publishing = threading.Lock()


def await_go() -> None:
    """Wait until the test makes the file."""
    deadline = time.monotonic() + TIMEOUT
    while not GO.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the test never made the file")
        time.sleep(0.02)


def in_pool(number: int) -> str:
    """On a thread of a pool that was there before."""
    return pool.submit(str, number).result()


def in_new_pool(number: int) -> str:
    """On a thread of a new pool."""
    with ThreadPoolExecutor(1) as new:
        return new.submit(str, number).result()


def in_thread(number: int) -> str:
    """On a new thread."""
    made: list[str] = []
    thread = threading.Thread(target=lambda: made.append(str(number)))
    thread.start()
    thread.join()
    return made[0]


def after_look_up(number: int) -> str:
    """After an asynchronous look-up of a name, for which asyncio uses a pool of threads."""

    async def look_up() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    asyncio.run(look_up())
    return str(number)


WAYS: dict[str, Callable[[int], str]] = {
    "str": str,
    "pool": in_pool,
    "new_pool": in_new_pool,
    "thread": in_thread,
    "look_up": after_look_up,
}


def produce(make: Callable[[int], str]) -> Iterator[str]:
    """The events of an answer."""
    yield "begun"
    await_go()
    for number in range(EVENTS):
        yield make(number)
    yield "done"


def publish() -> None:
    """Publish what an answer has, once for all subscribers, and end their streams."""
    await_go()
    data = [*map(str, range(EVENTS)), "done"]
    for each in data:
        broker.publish(CHANNEL, each)
    # A revocation does not wait for what was published.
    while any(stream["events"] < len(data) for stream in ssesync.streams.snapshot()["streams"]):
        time.sleep(0.02)
    broker.revoke(KEY)


def subscribe() -> ssesync.Subscription:
    if _publishing.acquire(blocking=False):
        threading.Thread(target=publish, daemon=True).start()
    return broker.subscribe(CHANNEL, key=KEY)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    kind, query = environ["PATH_INFO"], facts.query(environ)
    if kind == "/hang":
        time.sleep(TIMEOUT)
    if kind not in ("/answer", "/subscription"):
        return text(str(os.getpid()))(environ, start_response)
    options: dict[str, Any] = {"keep_alive": 60.0}
    if kind == "/subscription":
        return EventStream(subscribe(), key=KEY, drain="finish", **options)(environ, start_response)
    make = WAYS[query.get("do", "str")]
    return EventStream(lambda: produce(make), **options)(environ, start_response)
