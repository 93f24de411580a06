"""The application that the servers of these tests run: one process with Flask, Django and bare WSGI in it.

``/flask/events/<name>``, ``/django/events/<name>`` and ``/bare/events/<name>`` subscribe to the channel ``name``, or
what the query says; each place has ``publish``, and ``ping``, which is an ordinary request. ``through`` in the query
names the middleware round the answer. ``/flask/sources/<source>`` is a stream of each kind of source. What the process
holds is asked for at its door.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
import requests
from django.core.wsgi import get_wsgi_application
from flask import request, session

import ssesync
from ssesync import Event, EventStream, Relay, Writer, get_last_event_id
from ssesync_flask import SSE, EventStreamResponse, event_writer
from tests.live.apps import facts
from tests.live.apps.line import PATIENCE

from .control import Door
from .events import options_of, publish
from .middlewares import THROUGH, release

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

if os.environ.get("TESTS_TIMEOUT"):
    socket.setdefaulttimeout(float(os.environ["TESTS_TIMEOUT"]))

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("ssesync").setLevel(logging.DEBUG)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.live.detached.django_settings")
django_app = get_wsgi_application()

from . import django_app as django_part  # noqa: E402  # its models need what was set up just now

broker = ssesync.open_broker("memory://")
flask_app = flask.Flask(__name__)
flask_app.secret_key = "for tests only"
sse = SSE(flask_app, broker="memory://")

if os.environ.get("TESTS_USE_EARLY"):
    # With --preload this is in the process that forks the workers.
    early = sse.broker.subscribe("early")
    sse.publish("early", "published before any worker was there")


@flask_app.after_request
def cors(response: flask.Response) -> flask.Response:
    """As Flask-CORS does it."""
    if "cors" in request.args:
        response.headers["Access-Control-Allow-Origin"] = "https://example.org"
    return response


@flask_app.teardown_request
def note_teardown(error: BaseException | None) -> None:
    name = (request.view_args or {}).get("name", "")
    if name:
        facts.note(name, "teardown", threading.current_thread().name)


@flask_app.route("/events/<name>", methods=["GET", "POST"])
def events(name: str) -> flask.Response:
    session["visits"] = session.get("visits", 0) + 1
    if "reads" in request.args:
        facts.note(name, "body", len(request.get_data()))
    response = sse.subscribe(*request.args.get("channel", name).split(","), **options_of(name, request.args))
    response.call_on_close(lambda: facts.note(name, "answered", threading.current_thread().name))
    return response


@flask_app.get("/produced")
@event_writer
def produced(w: Writer) -> None:
    """A stream that a view writes: it stays on a thread of its own."""
    w.write_event("one")
    w.cancelled.wait(PATIENCE)


def generate() -> Iterator[str]:
    yield "one"
    while True:
        time.sleep(0.05)
        yield "another"


def write(w: Writer) -> None:
    w.write_event("one")
    w.cancelled.wait(PATIENCE)


def write_elsewhere() -> Writer:
    writer = Writer()
    threading.Thread(target=write, args=(writer,), daemon=True).start()
    return writer


def upstream() -> requests.Response:
    return requests.get(request.args["upstream"], stream=True, timeout=(5, PATIENCE))


def unchanged(event: Event) -> Event:
    return event


#: What a view may stream, by the name of the source.
SOURCES: dict[str, Callable[[], Any]] = {
    "generator": lambda: generate,
    "writer view": lambda: EventStream.from_writer(write, **json.loads(request.args.get("options", "{}"))),
    "writer": write_elsewhere,
    "relay": lambda: Relay(upstream()),
    "relay from request": lambda: Relay.from_request(request, request.args["upstream"], timeout=(5, PATIENCE)),
    "relay with transform": lambda: Relay(upstream(), transform=unchanged),
}


@flask_app.get("/sources/<source>")
def sources(source: str) -> flask.Response:
    made = SOURCES[source]()
    options = {} if isinstance(made, EventStream) else json.loads(request.args.get("options", "{}"))
    return EventStreamResponse(made, **options)


@flask_app.post("/publish")
def publish_all() -> list[Any]:
    return publish(sse.publish, request.args["channel"], json.loads(request.get_data()))


@flask_app.get("/ping")
def ping() -> str:
    return "pong"


@flask_app.get("/visits")
def visits() -> str:
    return str(session.get("visits", 0))


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = facts.query(environ)
    _, kind, *rest = environ["PATH_INFO"].split("/")
    if kind == "events":
        options = options_of(rest[0], query)
        options.pop("on_connect", None)
        key = options.pop("key")
        subscription = broker.subscribe(
            *query.get("channel", rest[0]).split(","), last_event_id=get_last_event_id(environ), key=key
        )
        return EventStream(subscription, key=key, name=environ["PATH_INFO"], **options)(environ, start_response)
    if kind == "publish":
        data = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        return _text(start_response, json.dumps(publish(broker.publish, query["channel"], data)))
    return _text(start_response, "pong")


def _text(start_response: StartResponse, text: str) -> Iterable[bytes]:
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


PLACES: dict[str, WSGIApplication] = {"flask": flask_app.wsgi_app, "django": django_app, "bare": bare}
BROKERS: dict[str, Callable[[], ssesync.Broker]] = {
    "flask": lambda: sse.broker,
    "django": django_part.ssesync_django.get_broker,
    "bare": lambda: broker,
}


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""  # gone since the listing, as its own is


def state() -> dict[str, Any]:
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": {each.name: target for each in Path("/proc/self/fd").iterdir() if (target := _target(each))},
        "subscribers": sum(len(get().dispatcher) for get in BROKERS.values()),
        **ssesync.streams.snapshot(),
    }


def publish_here(place: str, channel: str, data: list[Any]) -> list[str]:
    return [BROKERS[place]().publish(channel, each) for each in data]


def revoke(place: str, key: str) -> None:
    BROKERS[place]().revoke(key)


door = Door(
    Path(os.environ["TESTS_DATABASE"]).with_name("door"),
    {
        "state": state,
        "facts": facts.of,
        "publish": publish_here,
        "revoke": revoke,
        "release": release,
        "connections": django_part.open_connections,
    },
)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    door.open()
    place, _, rest = environ["PATH_INFO"][1:].partition("/")
    if place not in PLACES:
        return _text(start_response, "plain")
    environ["SCRIPT_NAME"] += f"/{place}"
    environ["PATH_INFO"] = f"/{rest}"
    inner = PLACES[place]
    through = facts.query(environ).get("through")
    if through:
        inner = THROUGH[through](inner)
    return inner(environ, start_response)


# flask run serves the Flask application, whatever it does.
flask_app.wsgi_app = application  # type: ignore[method-assign]
