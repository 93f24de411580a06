"""A producer that the test orders to read what belongs to its request, and to use a database by SQLAlchemy."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, after_this_request, g, request, session, stream_with_context, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from ssesync import Event, StreamClosed, Writer
from ssesync_flask import EventStreamResponse, event_stream, event_writer
from tests.apps import facts
from tests.apps.led import led, noted, options_of
from tests.apps.line import TIMEOUT, Line
from tests.apps.processes import PROCESSES

blueprint = Blueprint("contexts", __name__)
database = SQLAlchemy()
blueprint.record_once(lambda state: database.init_app(state.app))


def checked_out() -> int:
    """Return how many of the pool's connections are in use."""
    count: int = database.engine.pool.checkedout()  # type: ignore[attr-defined]
    return count


TEXTS = {"en": "good morning", "de": "guten Morgen"}
variable = contextvars.ContextVar("variable", default="nothing")


def gettext() -> str:
    """As Flask-Babel has it: the language is found once for each context."""
    if "language" not in g:
        g.language = request.accept_languages.best_match(list(TEXTS))
    return TEXTS[g.language]


@blueprint.before_app_request
def remember_key() -> None:
    g.key = request.args.get("key", "")


@blueprint.teardown_app_request
def note_request_teardown(error: BaseException | None) -> None:
    facts.note(g.key, "order", "teardown_request")


def note_app_teardown(error: BaseException | None) -> None:
    facts.note(g.get("key", ""), "order", "teardown_appcontext")


blueprint.record_once(lambda state: state.app.teardown_appcontext(note_app_teardown))


@blueprint.route("/led", methods=["GET", "POST"])
def lead() -> Response:
    """A view that has set what belongs to its request, and a producer that reads it."""
    g.user = {"name": "somebody"}
    session["visits"] = session.get("visits", 0) + 1
    variable.set("of the view")

    @after_this_request
    def add_header(response: Response) -> Response:
        response.headers["X-After"] = "yes"
        return response

    def write_session() -> int:
        session["late"] = session.get("late", 0) + 1
        late: int = session["late"]
        return late

    steps = {
        "g": lambda: g.user["name"],
        "session": lambda: session["visits"],
        "write session": write_session,
        "url_for": lambda: url_for("common.plain", _external=True, of="me"),
        "request": lambda: [request.method, request.path, request.args["key"], request.headers["X-Of-Client"]],
        "form": lambda: request.form["name"],
        "file": lambda: len(request.files["file"].read()),
        "translation": gettext,
        "variable": variable.get,
        "query": lambda: database.session.execute(text("SELECT 41 + 1")).scalar(),
        "held": checked_out,
        "sessions": lambda: len(database.session.registry.registry),
        **PROCESSES,
    }
    line = int(request.args["line"])
    key = g.key
    response = EventStreamResponse(lambda: led(line, steps, key), on_close=noted(key), **options_of(request.args))
    response.call_on_close(lambda: facts.note(key, "order", "call_on_close"))
    return response


@blueprint.get("/with-context")
def with_context() -> Response:
    """As Flask's own pages say that a generator is given its request."""

    @stream_with_context
    def generate() -> Iterator[Any]:
        yield from led(int(request.args["line"]), {"request": lambda: request.path}, request.args["key"])

    return EventStreamResponse(generate(), on_close=noted(g.key), **options_of(request.args))


@blueprint.get("/busy")
def busy() -> Response:
    """Many large events with numbers, so that one that is lost, doubled or out of order is seen."""
    count, size = int(request.args["count"]), int(request.args["size"])

    def events() -> Iterator[Event]:
        for number in range(count):
            yield Event(str(number).ljust(size, "x"), id=number)

    return EventStreamResponse(events, on_close=noted(g.key), **options_of(request.args))


@blueprint.get("/leave")
def leave() -> Response:
    """A writer that sleeps until its stream is cancelled, and reports that."""
    line, key = int(request.args["line"]), g.key

    def write(writer: Writer) -> None:
        writer.write("one")
        with Line.call(line) as test:
            test.say(begun=True)
            gone = writer.cancelled.wait(TIMEOUT)
            try:
                writer.write("two")
            except StreamClosed as error:
                test.say(cancelled=bool(gone), reason=error.reason)

    @event_writer(on_close=noted(key), **options_of(request.args))
    def view(writer: Writer) -> None:
        write(writer)

    return view()


@blueprint.get("/failing")
@event_stream
def failing() -> Iterator[str]:
    yield "one"
    raise LookupError("of the producer")


@blueprint.get("/visits")
def visits() -> dict[str, Any]:
    return dict(session)
