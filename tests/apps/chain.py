"""A process of a chain: ``CHAIN_ROLE`` in the environment is ``origin``, or the framework of a gateway to the next.

``/own`` is what the process holds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ssesync import streams

from . import process
from .wsgi import in_json, relays

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def own() -> dict[str, Any]:
    return {
        "descriptors": len(process.descriptors()),
        "threads": threading.active_count(),
        "produced": relays.produced,
        "closed": list(relays.closed),
        "streams": streams.snapshot(),
    }


def in_framework(application: WSGIApplication) -> WSGIApplication:
    """An application whose gateway lies below ``/relay``."""

    def below(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["PATH_INFO"] = f"/relay{environ['PATH_INFO']}"
        return application(environ, start_response)

    return below


def make_flask() -> WSGIApplication:
    from .flask_app import create_app, relays

    return in_framework(create_app(relays.blueprint))


def make_django() -> WSGIApplication:
    from .django_project.wsgi import application

    return in_framework(application)


ROLES: dict[str, Callable[[], WSGIApplication]] = {
    "origin": lambda: relays.origin,
    "bare": lambda: relays.relay,
    "flask": make_flask,
    "django": make_django,
}
role = ROLES[os.environ["CHAIN_ROLE"]]()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] in ("/plain", "/own"):
        return in_json(own())(environ, start_response)
    return role(environ, start_response)
