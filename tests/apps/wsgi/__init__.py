"""Plain WSGI: answers of a few words, and several applications in one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def text(body: str | bytes, status: str = "200 OK", kind: str = "text/plain") -> WSGIApplication:
    """Make an application that answers with a text."""
    data = body if isinstance(body, bytes) else body.encode()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(data)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else data]

    return application


def in_json(value: Any, status: str = "200 OK") -> WSGIApplication:
    """Make an application that answers with a value as JSON."""
    return text(json.dumps(value), status, "application/json")


def mounted(
    places: Mapping[str, WSGIApplication], otherwise: Callable[[WSGIEnvironment], WSGIApplication] | None = None
) -> WSGIApplication:
    """Make an application of several.

    :param places: the applications by the first parts of their paths, for example ``/flask`` and ``/checked/flask``.
    :param otherwise: called with the environ of a request to another place; returns what answers it. Without it, every
        such request is answered ``plain``.
    """

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        parts = path.split("/")
        for length in range(len(parts) - 1, 1, -1):
            place = "/".join(parts[:length])
            if place in places:
                environ["SCRIPT_NAME"] += place
                environ["PATH_INFO"] = path.removeprefix(place)
                return places[place](environ, start_response)
        return (text("plain") if otherwise is None else otherwise(environ))(environ, start_response)

    return application
