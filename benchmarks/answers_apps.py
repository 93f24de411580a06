"""The applications that benchmarks.answers serves. Each has:

``/producer?rate=10``
    A stream with a producer of its own, which sends so many events a second, the first at once.
``/relay?url=…``
    The stream of an upstream, passed on.
``/plain``
    A view of 100 bytes.
``/lag``
    How long calls from another thread waited for the loop since the last request, in ms, as a list: one each 20 ms. It
    is empty where there is no loop, or the application does not measure it.

The certificate of an upstream over TLS is checked with the file that the environment's ``BENCH_CA`` names.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from .fanout_apps import payload

CA = "BENCH_CA"
_PLAIN = "x" * 100
_PAUSE = 0.02


class Lag:
    """Measures a loop from a thread of its own.

    :param call_soon: has the loop call a function, from any thread.
    """

    def __init__(self, call_soon: Callable[[Callable[[], object]], object]) -> None:
        self._call_soon = call_soon
        self._found: list[float] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_PAUSE)
            self._call_soon(functools.partial(self._called, time.perf_counter()))

    def _called(self, since: float) -> None:
        self._found.append((time.perf_counter() - since) * 1e3)

    def taken(self) -> list[float]:
        """What was measured since the last time."""
        found, self._found = self._found, []
        return found


def ours(detach: bool = True) -> Any:
    """The application under ssesync_flask."""
    from flask import Flask, request

    from ssesync import Relay
    from ssesync.reactor import reactor
    from ssesync_flask import EventStreamResponse

    app = Flask(__name__)
    # More than the default of 1,200 may be asked for.
    options: dict[str, Any] = {"max_producers": None, **({} if detach else {"detach": False})}
    lags: list[Lag] = []

    @app.get("/producer")
    def producer() -> Any:
        pause = 1 / float(request.args["rate"])

        def events() -> Iterator[str]:
            for number in itertools.count():
                yield payload(number)
                time.sleep(pause)

        return EventStreamResponse(events(), **options)

    @app.get("/relay")
    def relay() -> Any:
        trusted = os.environ.get(CA, True)
        upstream = Relay.from_request(request, request.args["url"], params={}, timeout=(5, 60), verify=trusted)
        return EventStreamResponse(upstream, **options)

    @app.get("/plain")
    def plain() -> str:
        return _PLAIN

    @app.get("/lag")
    def lag() -> list[float]:
        if not detach:
            return []
        if not lags:
            lags.append(Lag(reactor().call_soon))
        return lags[0].taken()

    return app


def sse_starlette() -> Any:
    """Producers under sse-starlette."""
    from sse_starlette import EventSourceResponse
    from starlette.requests import Request

    async def producer(request: Request) -> EventSourceResponse:
        pause = 1 / float(request.query_params["rate"])

        async def events() -> AsyncIterator[dict[str, str]]:
            for number in itertools.count():
                yield {"data": payload(number)}
                await asyncio.sleep(pause)

        return EventSourceResponse(events())

    return _starlette("/producer", producer)


def streaming() -> Any:
    """Producers under nothing but Starlette."""
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    async def producer(request: Request) -> StreamingResponse:
        pause = 1 / float(request.query_params["rate"])

        async def events() -> AsyncIterator[str]:
            for number in itertools.count():
                yield f"data: {payload(number)}\n\n"
                await asyncio.sleep(pause)

        return StreamingResponse(events(), media_type="text/event-stream")

    return _starlette("/producer", producer)


def with_httpx() -> Any:
    """Relays by httpx, under Starlette."""
    import httpx
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    limits = httpx.Limits(max_connections=None)
    clients: list[httpx.AsyncClient] = []

    async def relay(request: Request) -> StreamingResponse:
        if not clients:
            verify = _context() or True
            clients.append(httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(60, connect=5), verify=verify))
        asked = clients[0].build_request("GET", request.query_params["url"])
        upstream = await clients[0].send(asked, stream=True)
        close = BackgroundTask(upstream.aclose)
        return StreamingResponse(upstream.aiter_raw(), media_type="text/event-stream", background=close)

    return _starlette("/relay", relay)


def with_aiohttp() -> Any:
    """Relays by aiohttp, under Starlette."""
    import aiohttp
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    sessions: list[aiohttp.ClientSession] = []

    async def relay(request: Request) -> StreamingResponse:
        if not sessions:
            connector = aiohttp.TCPConnector(limit=0, ssl=_context() or True)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
            sessions.append(aiohttp.ClientSession(connector=connector, timeout=timeout))
        upstream = await sessions[0].get(request.query_params["url"])

        async def chunks() -> AsyncIterator[bytes]:
            async with upstream:
                async for chunk in upstream.content.iter_any():
                    yield chunk

        return StreamingResponse(chunks(), media_type="text/event-stream")

    return _starlette("/relay", relay)


def _context() -> ssl.SSLContext | None:
    path = os.environ.get(CA)
    return ssl.create_default_context(cafile=path) if path else None


def _starlette(path: str, view: Callable[..., Any]) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    lags: list[Lag] = []

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse(_PLAIN)

    async def lag(request: Request) -> JSONResponse:
        if not lags:
            lags.append(Lag(asyncio.get_running_loop().call_soon_threadsafe))
        return JSONResponse(lags[0].taken())

    return Starlette(routes=[Route(path, view), Route("/plain", plain), Route("/lag", lag)])
