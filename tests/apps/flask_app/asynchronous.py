"""Views whose producers are asynchronous. What happens to each is noted under its path, in its order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from flask import Blueprint, abort, g, request

from ssesync import Event, from_async
from ssesync_flask import EventStreamResponse, event_stream

blueprint = Blueprint("asynchronous", __name__, url_prefix="/async")
notes: list[str] = []
go = threading.Event()


@blueprint.route("/waits")
def waits() -> Any:
    """Has an event when it begins, and one when it is let go, with what the view and the request had."""
    g.name = request.args.get("name", "")

    async def produce() -> AsyncIterator[str]:
        yield "one"
        while not go.is_set():
            await asyncio.sleep(0.02)
        yield f"two {request.path} {g.name} {threading.current_thread().name}"

    return EventStreamResponse(from_async(produce))


@blueprint.route("/endless")
@event_stream
def endless() -> Any:
    async def produce() -> AsyncIterator[Event]:
        try:
            yield Event("one", id=request.args.get("id"))
            await asyncio.sleep(3600)
        finally:
            notes.append("the asynchronous one was cancelled")

    return from_async(produce())


@blueprint.route("/short")
@event_stream
def short() -> Any:
    async def produce() -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(1)
        yield await asyncio.to_thread(lambda: "two")

    return from_async(produce)


@blueprint.route("/synchronous")
@event_stream
def synchronous() -> Iterator[str]:
    """The same by steps, as a bridge that waits for the next event would do."""
    yield "one"
    try:
        while True:
            time.sleep(0.5)
            yield "step"
    finally:
        notes.append("the synchronous one was closed")


@blueprint.route("/missing")
@event_stream
def missing() -> Any:
    async def produce() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        abort(404)
        yield "never"

    return from_async(produce)


@blueprint.route("/fails")
@event_stream
def fails() -> Any:
    async def produce() -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(0.01)
        raise RuntimeError("the password is swordfish")

    return from_async(produce)


@blueprint.route("/large")
@event_stream
def large() -> Any:
    """Notes how many events it was asked for."""

    async def produce() -> AsyncIterator[str]:
        for number in range(1000):
            notes.append(str(number))
            yield 100_000 * "x"

    return from_async(produce)


@blueprint.route("/notes")
def list_of_notes() -> list[str]:
    return notes


@blueprint.route("/go")
def let_go() -> str:
    go.set()
    return "gone"
