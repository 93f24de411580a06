"""The routes of ``frameworks``."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, Response, abort, g, has_app_context, has_request_context, make_response, request
from flask.globals import app_ctx, request_ctx
from flask.typing import ResponseReturnValue

from ssesync import Writer
from ssesync_flask import SSE, EventStreamResponse, event_stream, event_writer
from tests.apps import facts, producers
from tests.apps.wsgi import in_json

from . import create_app

blueprint = Blueprint("frameworks", __name__)


def cors(view: Callable[..., ResponseReturnValue]) -> Callable[..., Response]:
    """As Flask-CORS' decorator does it."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Response:
        response = make_response(view(*args, **kwargs))
        response.headers["Access-Control-Allow-Origin"] = "https://example.org"
        return response

    return wrapper


@blueprint.before_app_request
def remember_key() -> None:
    g.key = request.args.get("key", "")


@blueprint.after_app_request
def set_cookie(response: Response) -> Response:
    response.set_cookie("visited", "yes")
    return response


@blueprint.teardown_app_request
def note_request_teardown(error: BaseException | None) -> None:
    facts.note(g.key, "teardown_request", threading.get_ident())


def note_app_teardown(error: BaseException | None) -> None:
    facts.note(g.get("key", ""), "teardown_appcontext", threading.get_ident())


blueprint.record_once(lambda state: state.app.teardown_appcontext(note_app_teardown))


@blueprint.get("/gate")
@cors
@event_stream
def gate() -> Iterator[Any]:
    yield from producers.gate(int(request.args["line"]), g.key)


@blueprint.get("/writer")
@event_writer
def writer(w: Writer) -> None:
    producers.gate_writer(w, int(request.args["line"]), request.args.get("key", ""))


@blueprint.get("/leave")
def leave() -> EventStreamResponse:
    line = int(request.args["line"])
    on_close = producers.report_close(line, g.key)

    def source() -> Iterator[Any]:
        yield from producers.gate(line, request.args["key"])

    return EventStreamResponse(source, keep_alive=0.1, on_close=on_close)


@blueprint.get("/flood")
@event_stream(keep_alive=None)
def flood() -> Iterator[Any]:
    return producers.flood(*(int(request.args[name]) for name in ("line", "count", "size")))


@blueprint.get("/failing")
@event_stream(first_event_timeout=20)
def failing() -> Iterator[Any]:
    yield from producers.failing()


@blueprint.get("/forbidden")
@event_stream(first_event_timeout=20)
def forbidden() -> Iterator[Any]:
    abort(403)
    yield "never"


@blueprint.get("/crowd")
def crowd() -> EventStreamResponse:
    return EventStreamResponse(producers.crowd(Writer()))


@blueprint.get("/finished")
@event_stream(finished=lambda last_event_id: last_event_id == "2")
def finished() -> Iterator[Any]:
    facts.note(g.key, "started")
    yield from producers.ticks()


@blueprint.get("/ticks")
@event_stream
def ticks() -> Iterator[Any]:
    return producers.ticks()


app = create_app(blueprint, SSESYNC={"first_event_timeout": 0.05})
SSE(app)


def contexts(environ: Any, start_response: Any) -> Any:
    """Beside the application: what is still pushed on the thread that serves this."""
    left = has_app_context() or has_request_context() or bool(app_ctx) or bool(request_ctx)
    return in_json({"left": left, "thread": threading.get_ident()})(environ, start_response)


def route(environ: Any, start_response: Any) -> Any:
    return (contexts if environ["PATH_INFO"] == "/contexts" else app)(environ, start_response)
