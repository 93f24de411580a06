"""The Python applications that benchmarks.fanout serves.

All serve ``/events``, the stream of one channel, and ``/publish?first=0&count=100``, which publishes within the process
of the server, one event after the other, and answers when the last one is published.

``ours``
    The Flask integration with a broker in memory and default settings, except ``detach`` for served streams.
    With ``own``, each client also has a channel of its own, to which nothing is published.
    ``/tiers`` lists the serving modes of its streams, ``/spin?on=1`` starts a computing thread, ``/spin?on=0`` ends it.
``sse_starlette``
    A queue for each client, as the project's example of broadcasting has it, and nothing else set.
``streaming``
    The same with Starlette's bare ``StreamingResponse``: no keep-alives, and an event is encoded once for all clients.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

#: How long the data of an event is.
SIZE = 200
CHANNEL = "benchmark"


def payload(number: int) -> str:
    """The data of an event: its number, the time, and what makes it long."""
    return f"{number} {time.monotonic_ns()} ".ljust(SIZE, "x")


def publish(send: Callable[[str], object], arguments: Any) -> str:
    """Carry out a request for ``/publish``."""
    first = int(arguments["first"])
    for number in range(first, first + int(arguments["count"])):
        send(payload(number))
    return "0\n"


class Spinner:
    """A thread that computes, when there is to be one."""

    def __init__(self) -> None:
        self._on = False
        self._thread: threading.Thread | None = None

    def turn(self, on: bool) -> None:
        """Have one, or have none."""
        if on == self._on:
            return
        self._on = on
        if on:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        elif self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while self._on:
            number = (number * 5 + 1) % 1_000_003


def ours(detach: bool = True, own: bool = False) -> Any:
    """The application under ssesync_flask."""
    from flask import Flask, request

    from ssesync import streams
    from ssesync_flask import SSE

    app = Flask(__name__)
    sse = SSE(app, broker="memory://", **({} if detach else {"detach": False}))
    spinner = Spinner()
    numbers = itertools.count()

    @app.get("/events")
    def events() -> Any:
        return sse.subscribe(CHANNEL, *([f"user:{next(numbers)}"] if own else []))

    @app.get("/publish")
    def publish_inside() -> str:
        return publish(lambda text: sse.publish(CHANNEL, text), request.args)

    @app.get("/tiers")
    def tiers() -> dict[str, int]:
        return collections.Counter(str(each.get("tier")) for each in streams.snapshot()["streams"])

    @app.get("/spin")
    def spin() -> str:
        spinner.turn(request.args["on"] == "1")
        return "0\n"

    return app


def sse_starlette() -> Any:
    """The application under sse-starlette."""
    from sse_starlette import EventSourceResponse
    from starlette.requests import Request

    queues: set[asyncio.Queue[str]] = set()

    async def events(request: Request) -> EventSourceResponse:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)

        async def generate() -> AsyncIterator[dict[str, str]]:
            try:
                while True:
                    yield {"data": await queue.get()}
            finally:
                queues.discard(queue)

        return EventSourceResponse(generate())

    def send(text: str) -> None:
        for queue in queues:
            queue.put_nowait(text)

    return _starlette(events, send)


def streaming() -> Any:
    """The application under nothing but Starlette."""
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    queues: set[asyncio.Queue[bytes]] = set()

    async def events(request: Request) -> StreamingResponse:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues.add(queue)

        async def generate() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield await queue.get()
            finally:
                queues.discard(queue)

        return StreamingResponse(generate(), media_type="text/event-stream")

    def send(text: str) -> None:
        block = f"data: {text}\n\n".encode()
        for queue in queues:
            queue.put_nowait(block)

    return _starlette(events, send)


def _starlette(events: Callable[..., Any], send: Callable[[str], object]) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def publish_inside(request: Request) -> PlainTextResponse:
        return PlainTextResponse(publish(send, request.query_params))

    return Starlette(routes=[Route("/events", events), Route("/publish", publish_inside)])
