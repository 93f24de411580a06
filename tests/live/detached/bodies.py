"""The application of requests with bodies: a producer reads one when its stream has left the server.

``/bare``, ``/flask`` and ``/django``; ``how`` says by which object, ``before`` how many bytes the view reads first.
What was read comes as one event, with the serving mode of the stream.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flask
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase

import ssesync
from ssesync import EventStream
from ssesync_django import EventStreamResponse as DjangoResponse
from ssesync_flask import EventStreamResponse as FlaskResponse
from tests.live.apps import facts

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")

# Django's settings: this module is them as well.
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["ssesync_django"]
ROOT_URLCONF = "tests.live.detached.bodies_urls"
WSGI_APPLICATION = "tests.live.detached.bodies.application"
DATA_UPLOAD_MAX_MEMORY_SIZE = None
LOGGING_CONFIG = None
USE_TZ = True

#: Seconds that a producer waits for its stream to be detached.
_HAND_OVER = 0.5

Read = Callable[[], bytes]


def produce(name: str, read: Read) -> Iterator[dict[str, Any]]:
    """Read when the stream has left the server, or stays there."""
    yield {"begun": True}
    deadline = time.monotonic() + _HAND_OVER
    tier = ""
    while tier != "detached" and time.monotonic() < deadline:
        time.sleep(0.01)
        tier = next(each["tier"] for each in ssesync.streams.snapshot()["streams"] if each["name"] == name)
    time.sleep(0.05)  # so that the server is done with the request
    data = read()
    yield {"tier": tier, "length": len(data), "digest": hashlib.sha256(data).hexdigest()}


def options_of(query: dict[str, str]) -> dict[str, Any]:
    return {
        "name": query["name"],
        "detach": {"true": True, "false": False}.get(query.get("detach", ""), "auto"),
        "max_request_body": int(query.get("most", 16 * 1024 * 1024)),
    }


def read_all(stream: Any, environ: WSGIEnvironment) -> bytes:
    """Read a body by pieces, as a server's own input may have no end."""
    length = environ.get("CONTENT_LENGTH")
    left = int(length) if length else sys.maxsize
    pieces = []
    while left and (piece := stream.read(min(left, 50_000))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = facts.query(environ)
    stream = environ["wsgi.input"]
    before = stream.read(int(query["before"])) if "before" in query else b""
    if query.get("how") == "all":
        data = read_all(stream, environ)
        source = produce(query["name"], lambda: data)
    elif before:
        rest = {**environ, "CONTENT_LENGTH": str(int(environ["CONTENT_LENGTH"]) - len(before))}
        source = produce(query["name"], lambda: before + read_all(stream, rest))
    else:
        source = produce(query["name"], lambda: read_all(stream, environ))
    return EventStream(source, **options_of(query))(environ, start_response)


flask_app = flask.Flask(__name__)


@flask_app.post("/flask")
def flask_view() -> flask.Response:
    query, request = flask.request.args.to_dict(), flask.request
    before = request.stream.read(int(query["before"])) if "before" in query else b""
    ways: dict[str, Read] = {
        "stream": lambda: before + request.stream.read(),
        "data": lambda: request.get_data(),
        "form": lambda: request.form["field"].encode(),
        "file": lambda: request.files["file"].read(),
    }
    read = ways[query["how"]]
    if "early" in query:
        read = functools.partial(bytes, read())
    return FlaskResponse(produce(query["name"], read), **options_of(query))


def django_view(request: HttpRequest) -> HttpResponseBase:
    query = request.GET.dict()
    before = request.read(int(query["before"])) if "before" in query else b""

    def read_file() -> bytes:
        data = request.FILES["file"].read()
        assert isinstance(data, bytes)
        return data

    ways: dict[str, Read] = {
        "read": lambda: before + request.read(),
        "body": lambda: request.body,
        "form": lambda: str(request.POST["field"]).encode(),
        "file": read_file,
    }
    read = ways[query["how"]]
    if "parsed" in query:
        assert request.FILES or request.POST
    if "early" in query:
        read = functools.partial(bytes, read())
    return DjangoResponse(produce(query["name"], read), request=request, **options_of(query))


os.environ["DJANGO_SETTINGS_MODULE"] = "tests.live.detached.bodies"
django_app: Any = None


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    global django_app
    path = environ["PATH_INFO"]
    if path == "/bare":
        return bare(environ, start_response)
    if path == "/flask":
        return flask_app(environ, start_response)
    if path == "/django":
        django_app = django_app or get_wsgi_application()
        return django_app(environ, start_response)  # type: ignore[no-any-return]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"plain"]
