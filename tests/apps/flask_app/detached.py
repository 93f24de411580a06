"""Subscriptions whose streams leave the server, what is noted of their requests, and a stream of each source."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from flask import Blueprint, Response, request, session

from ssesync import Event, EventStream, Relay, Writer
from ssesync_flask import SSE, EventStreamResponse, event_writer
from tests.apps import facts
from tests.apps.line import TIMEOUT
from tests.apps.subscriptions import options_of, publish

blueprint = Blueprint("detached", __name__)
sse = SSE(broker="memory://")
blueprint.record_once(lambda state: sse.init_app(state.app))


@blueprint.after_app_request
def cors(response: Response) -> Response:
    """As Flask-CORS does it."""
    if "cors" in request.args:
        response.headers["Access-Control-Allow-Origin"] = "https://example.org"
    return response


@blueprint.teardown_app_request
def note_teardown(error: BaseException | None) -> None:
    name = (request.view_args or {}).get("name", "")
    if name:
        facts.note(name, "teardown", threading.current_thread().name)


@blueprint.route("/events/<name>", methods=["GET", "POST"])
def events(name: str) -> Response:
    session["visits"] = session.get("visits", 0) + 1
    if "reads" in request.args:
        facts.note(name, "body", len(request.get_data()))
    response = sse.subscribe(*request.args.get("channel", name).split(","), **options_of(name, request.args))
    response.call_on_close(lambda: facts.note(name, "answered", threading.current_thread().name))
    return response


@blueprint.get("/produced")
@event_writer
def produced(w: Writer) -> None:
    """A stream that a view writes: it stays on a thread of its own."""
    w.write_event("one")
    w.cancelled.wait(TIMEOUT)


def generate() -> Iterator[str]:
    yield "one"
    while True:
        time.sleep(0.05)
        yield "another"


def write(w: Writer) -> None:
    w.write_event("one")
    w.cancelled.wait(TIMEOUT)


def write_elsewhere() -> Writer:
    writer = Writer()
    threading.Thread(target=write, args=(writer,), daemon=True).start()
    return writer


def upstream() -> requests.Response:
    return requests.get(request.args["upstream"], stream=True, timeout=(5, TIMEOUT))


def unchanged(event: Event) -> Event:
    return event


#: What a view may stream, by the name of the source.
SOURCES: dict[str, Callable[[], Any]] = {
    "generator": lambda: generate,
    "writer view": lambda: EventStream.from_writer(write, **json.loads(request.args.get("options", "{}"))),
    "writer": write_elsewhere,
    "relay": lambda: Relay(upstream()),
    "relay from request": lambda: Relay.from_request(request, request.args["upstream"], timeout=(5, TIMEOUT)),
    "relay with transform": lambda: Relay(upstream(), transform=unchanged),
}


@blueprint.get("/sources/<source>")
def sources(source: str) -> Response:
    made = SOURCES[source]()
    options = {} if isinstance(made, EventStream) else json.loads(request.args.get("options", "{}"))
    return EventStreamResponse(made, **options)


@blueprint.post("/publish")
def publish_all() -> list[Any]:
    return publish(sse.publish, request.args["channel"], json.loads(request.get_data()))


@blueprint.get("/ping")
def ping() -> str:
    return "pong"


@blueprint.get("/visits")
def visits() -> str:
    return str(session.get("visits", 0))
