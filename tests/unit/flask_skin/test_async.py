"""Asynchronous producers in Flask's views: with the request's contexts, and a teardown of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from flask import Flask, Response, abort, current_app, g, request, session

from ssesync import from_async
from ssesync_flask import EventStreamResponse, event_stream


def application(seen: list[Any]) -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"

    @app.before_request
    def load() -> None:
        g.user = request.args.get("user")
        session["user"] = g.user

    @app.teardown_appcontext
    def teardown(error: BaseException | None) -> None:
        seen.append("teardown")

    @app.get("/stream/<name>")
    @event_stream
    def stream(name: str) -> Any:
        async def produce() -> AsyncIterator[Any]:
            await asyncio.sleep(0)
            yield [name, request.path, g.user, session["user"], current_app.name]
            await asyncio.sleep(0.01)
            yield {"at": datetime(2026, 7, 28), "path": request.path}
            seen.append("end")

        return from_async(produce)

    @app.get("/missing")
    def missing() -> Response:
        async def produce() -> AsyncIterator[str]:
            await asyncio.sleep(0.3)
            abort(404)
            yield "never"

        return EventStreamResponse(from_async(produce))

    return app


def test_it_has_the_requests_contexts_and_flasks_encoder() -> None:
    seen: list[Any] = []
    client = application(seen).test_client()
    for user in ("ann", "bob"):
        answer = client.get(f"/stream/x?user={user}")
        assert answer.status_code == 200
        first = f'data: ["x","/stream/x","{user}","{user}","{__name__}"]'
        second = 'data: {"at":"Tue, 28 Jul 2026 00:00:00 GMT","path":"/stream/x"}'
        assert answer.get_data(as_text=True) == f":ok\n{first}\n\n{second}\n\n"
    assert seen.count("end") == 2
    # That of the view, and that of its producer.
    assert seen.count("teardown") == 4


def test_an_abort_has_its_status() -> None:
    assert application([]).test_client().get("/missing").status_code == 404
