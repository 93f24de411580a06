"""The application of the tests of contexts: Flask and Django in one process, and both in wrappers of the response.

``/flask`` and ``/django`` are the applications, ``/wrapped/NAME/flask`` and so on are the same within a middleware.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
from django.core.wsgi import get_wsgi_application
from flask import Flask, after_this_request, g, request, session, stream_with_context, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from ssesync import Event, StreamClosed, Writer, streams
from ssesync_flask import EventStreamResponse, event_stream, event_writer
from tests.live.apps import facts
from tests.live.apps.line import PATIENCE, Line

from .led import led, noted, options_of
from .processes import PROCESSES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")

for each in ("werkzeug", "django.server"):
    logging.getLogger(each).setLevel(logging.WARNING)  # a line for each request

django_app = get_wsgi_application()
import_module("tests.live.answers.django_views")  # its receivers are to see the first request
FOLDER = Path(os.environ["TESTS_DATABASE"]).parent

app = Flask(__name__)
app.secret_key = "for tests only"
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{FOLDER / 'sqlalchemy.sqlite3'}"
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 10}
database = SQLAlchemy(app)
with app.app_context():
    engine = database.engine

TEXTS = {"en": "good morning", "de": "guten Morgen"}
variable = contextvars.ContextVar("variable", default="nothing")


def gettext() -> str:
    """As Flask-Babel has it: the language is found once for each context."""
    if "language" not in g:
        g.language = request.accept_languages.best_match(list(TEXTS))
    return TEXTS[g.language]


@app.before_request
def remember_key() -> None:
    g.key = request.args.get("key", "")


@app.teardown_request
def note_request_teardown(error: BaseException | None) -> None:
    facts.note(g.key, "order", "teardown_request")


@app.teardown_appcontext
def note_app_teardown(error: BaseException | None) -> None:
    facts.note(g.get("key", ""), "order", "teardown_appcontext")


@app.route("/led", methods=["GET", "POST"])
def lead() -> flask.Response:
    """A view that has set what belongs to its request, and a producer that reads it."""
    g.user = {"name": "somebody"}
    session["visits"] = session.get("visits", 0) + 1
    variable.set("of the view")

    @after_this_request
    def add_header(response: flask.Response) -> flask.Response:
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
        "url_for": lambda: url_for("plain", _external=True, of="me"),
        "request": lambda: [request.method, request.path, request.args["key"], request.headers["X-Of-Client"]],
        "form": lambda: request.form["name"],
        "file": lambda: len(request.files["file"].read()),
        "translation": gettext,
        "variable": variable.get,
        "query": lambda: database.session.execute(text("SELECT 41 + 1")).scalar(),
        "held": lambda: engine.pool.checkedout(),  # type: ignore[attr-defined]
        "sessions": lambda: len(database.session.registry.registry),
        **PROCESSES,
    }
    line = int(request.args["line"])
    key = g.key
    response = EventStreamResponse(lambda: led(line, steps, key), on_close=noted(key), **options_of(request.args))
    response.call_on_close(lambda: facts.note(key, "order", "call_on_close"))
    return response


@app.get("/with-context")
def with_context() -> flask.Response:
    """As Flask's own pages say that a generator is given its request."""

    @stream_with_context
    def generate() -> Iterator[Any]:
        yield from led(int(request.args["line"]), {"request": lambda: request.path}, request.args["key"])

    return EventStreamResponse(generate(), on_close=noted(g.key), **options_of(request.args))


@app.get("/busy")
def busy() -> flask.Response:
    """Many large events with numbers, so that one that is lost, doubled or out of order is seen."""
    count, size = int(request.args["count"]), int(request.args["size"])

    def events() -> Iterator[Event]:
        for number in range(count):
            yield Event(str(number).ljust(size, "x"), id=number)

    return EventStreamResponse(events, on_close=noted(g.key), **options_of(request.args))


@app.get("/leave")
def leave() -> flask.Response:
    """A writer that sleeps until its stream is cancelled, and reports that."""
    line, key = int(request.args["line"]), g.key

    def write(writer: Writer) -> None:
        writer.write("one")
        with Line.call(line) as test:
            test.say(begun=True)
            gone = writer.cancelled.wait(PATIENCE)
            try:
                writer.write("two")
            except StreamClosed as error:
                test.say(cancelled=bool(gone), reason=error.reason)

    @event_writer(on_close=noted(key), **options_of(request.args))
    def view(writer: Writer) -> None:
        write(writer)

    return view()


@app.get("/failing")
@event_stream
def failing() -> Iterator[str]:
    yield "one"
    raise LookupError("of the producer")


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/visits")
def visits() -> dict[str, Any]:
    return dict(session)


def sentry(application: WSGIApplication) -> WSGIApplication:
    """Sentry's middleware; what it would send is noted."""
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.flask import FlaskIntegration
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
    from sentry_sdk.transport import Transport

    class Noting(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            for item in envelope.items:
                what = json.loads(item.get_bytes()) if item.type in ("event", "transaction") else {}
                if item.type == "transaction":
                    facts.note("sentry", "ended", what["request"]["query_string"])
                for each in what.get("exception", {}).get("values", []):
                    facts.note("sentry", "raised", each["type"])

    # Those that it finds by itself import every package here that it knows.
    integrations = [DjangoIntegration(), FlaskIntegration()]
    sentry_sdk.init(
        dsn="https://key@localhost/1",
        transport=Noting,
        traces_sample_rate=1.0,
        integrations=integrations,
        auto_enabling_integrations=False,
    )
    return SentryWsgiMiddleware(application)


def opentelemetry(application: WSGIApplication) -> WSGIApplication:
    """OpenTelemetry's middleware; spans that have ended are noted."""
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Noting(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            for span in spans:
                facts.note("opentelemetry", "ended", span.attributes["http.target"])
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Noting()))
    return OpenTelemetryMiddleware(application, tracer_provider=provider)


PLACES: dict[str, WSGIApplication] = {"flask": app, "django": django_app}
WRAPPERS = {"sentry": sentry, "opentelemetry": opentelemetry}
_wrapped = {name: {place: WRAPPERS[name](inner) for place, inner in PLACES.items()}
            for name in os.environ.get("WRAPPERS", "").split()}  # fmt: skip


def state() -> dict[str, Any]:
    snapshot = streams.snapshot()
    tiers = [stream["tier"] for stream in snapshot["streams"]]
    return {
        "tiers": {tier: tiers.count(tier) for tier in ("detached", "served")},
        "producers": snapshot["producers"]["running"],
        "sqlalchemy": [engine.pool.checkedout(), len(database.session.registry.registry)],  # type: ignore[attr-defined]
    }


def limit_threads(query: dict[str, str]) -> str:
    """Have the system refuse new threads, as no stack of 64 TB can be mapped, or allow them again."""
    return str(threading.stack_size(1 << 46 if query["allowed"] == "no" else 0))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = facts.query(environ)
    places = PLACES
    _, place, rest = environ["PATH_INFO"].split("/", 2) if environ["PATH_INFO"].count("/") > 1 else ("", "", "")
    if place == "wrapped":
        wrapper, place, rest = rest.split("/", 2)
        places = _wrapped[wrapper]
    if place in places:
        environ["SCRIPT_NAME"] += environ["PATH_INFO"].removesuffix(f"/{rest}")
        environ["PATH_INFO"] = f"/{rest}"
        return places[place](environ, start_response)
    answer = {
        "/facts": lambda: json.dumps(facts.of(query["of"])),
        "/state": lambda: json.dumps(state()),
        "/threads": lambda: limit_threads(query),
    }.get(environ["PATH_INFO"], lambda: "plain")()
    body = answer.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
