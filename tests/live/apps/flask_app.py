"""The application in Flask."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, abort, g, has_app_context, has_request_context, make_response, request
from flask.globals import app_ctx, request_ctx
from flask.typing import ResponseReturnValue

from ssesync import Writer
from ssesync_flask import SSE, EventStreamResponse, event_stream, event_writer

from . import facts, producers

app = Flask(__name__)
app.config["SSESYNC"] = {"first_event_timeout": 0.05}
SSE(app)


def cors(view: Callable[..., ResponseReturnValue]) -> Callable[..., Response]:
    """As Flask-CORS' decorator does it."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Response:
        response = make_response(view(*args, **kwargs))
        response.headers["Access-Control-Allow-Origin"] = "https://example.org"
        return response

    return wrapper


@app.before_request
def remember_key() -> None:
    g.key = request.args.get("key", "")


@app.after_request
def set_cookie(response: Response) -> Response:
    response.set_cookie("visited", "yes")
    return response


@app.teardown_request
def note_request_teardown(error: BaseException | None) -> None:
    facts.note(g.key, "teardown_request", threading.get_ident())


@app.teardown_appcontext
def note_app_teardown(error: BaseException | None) -> None:
    facts.note(g.get("key", ""), "teardown_appcontext", threading.get_ident())


@app.get("/gate")
@cors
@event_stream
def gate() -> Iterator[Any]:
    yield from producers.gate(int(request.args["line"]), g.key)


@app.get("/writer")
@event_writer
def writer(w: Writer) -> None:
    producers.gate_writer(w, int(request.args["line"]), request.args.get("key", ""))


@app.get("/leave")
def leave() -> EventStreamResponse:
    line = int(request.args["line"])
    on_close = producers.report_close(line, g.key)

    def source() -> Iterator[Any]:
        yield from producers.gate(line, request.args["key"])

    return EventStreamResponse(source, keep_alive=0.1, on_close=on_close)


@app.get("/flood")
@event_stream(keep_alive=None)
def flood() -> Iterator[Any]:
    return producers.flood(*(int(request.args[name]) for name in ("line", "count", "size")))


@app.get("/failing")
@event_stream(first_event_timeout=20)
def failing() -> Iterator[Any]:
    yield from producers.failing()


@app.get("/forbidden")
@event_stream(first_event_timeout=20)
def forbidden() -> Iterator[Any]:
    abort(403)
    yield "never"


@app.get("/crowd")
def crowd() -> EventStreamResponse:
    return EventStreamResponse(producers.crowd(Writer()))


@app.get("/finished")
@event_stream(finished=lambda last_event_id: last_event_id == "2")
def finished() -> Iterator[Any]:
    facts.note(g.key, "started")
    yield from producers.ticks()


@app.get("/ticks")
@event_stream
def ticks() -> Iterator[Any]:
    return producers.ticks()


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/facts")
def told() -> dict[str, Any]:
    return facts.of(request.args["of"])


def contexts(environ: Any, start_response: Any) -> list[bytes]:
    """Beside the application: what is still pushed on the thread that serves this."""
    left = has_app_context() or has_request_context() or bool(app_ctx) or bool(request_ctx)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b'{"left": %s, "thread": %d}' % (b"true" if left else b"false", threading.get_ident())]


def route(environ: Any, start_response: Any) -> Any:
    return (contexts if environ["PATH_INFO"] == "/contexts" else app)(environ, start_response)


application = facts.watched(route)
