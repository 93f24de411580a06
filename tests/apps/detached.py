"""Subscriptions whose streams leave the server: Flask, Django and plain WSGI in one process.

``/flask/events/<name>``, ``/django/events/<name>`` and ``/bare/events/<name>`` subscribe to the channel ``name``, or
what the query says; each place has ``publish``, and ``ping``, which is an ordinary request. ``through`` in the query
names the middleware round the response. ``/flask/sources/<source>`` is a stream of each kind of source. The test asks
by :mod:`tests.apps.control` what the process holds.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssesync
import ssesync_django

from . import facts, process
from .control import Door
from .django_project import database
from .django_project.wsgi import application as django_application
from .flask_app import create_app
from .flask_app import detached as in_flask
from .middlewares import THROUGH, release
from .wsgi import detached as in_wsgi
from .wsgi import mounted

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

if os.environ.get("TESTS_TIMEOUT"):
    socket.setdefaulttimeout(float(os.environ["TESTS_TIMEOUT"]))

process.log_to_stderr()
logging.getLogger("ssesync").setLevel(logging.DEBUG)

flask_app = create_app(in_flask.blueprint)
if os.environ.get("TESTS_USE_EARLY"):
    # With --preload this is in the process that forks the workers.
    early = in_flask.sse.broker.subscribe("early")
    in_flask.sse.publish("early", "published before any worker was there")

PLACES: dict[str, WSGIApplication] = {
    "/flask": flask_app.wsgi_app,
    "/django": django_application,
    "/bare": in_wsgi.bare,
}
BROKERS: dict[str, Callable[[], ssesync.Broker]] = {
    "flask": lambda: in_flask.sse.broker,
    "django": ssesync_django.get_broker,
    "bare": lambda: in_wsgi.broker,
}


def state() -> dict[str, Any]:
    subscribers = sum(len(get().dispatcher) for get in BROKERS.values())
    return {**process.state(), "descriptors": process.descriptors(), "subscribers": subscribers}


def publish(place: str, channel: str, data: list[Any]) -> list[str]:
    return [BROKERS[place]().publish(channel, each) for each in data]


def revoke(place: str, key: str) -> None:
    BROKERS[place]().revoke(key)


door = Door(
    Path(os.environ["TESTS_DATABASE"]).with_name("door"),
    {
        "state": state,
        "facts": facts.of,
        "publish": publish,
        "revoke": revoke,
        "release": release,
        "connections": database.open_connections,
    },
)


def through(application: WSGIApplication) -> WSGIApplication:
    """The middleware that the query names."""

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name = facts.query(environ).get("through")
        return (THROUGH[name](application) if name else application)(environ, start_response)

    return middleware


mounts = mounted({place: through(application) for place, application in PLACES.items()})


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    door.open()
    return mounts(environ, start_response)


# flask run serves the Flask application, whatever it does.
flask_app.wsgi_app = application  # type: ignore[method-assign]
