"""All three applications in one process: ``/bare``, ``/flask``, ``/django``; under ``/checked`` again, in the
standard library's checker of both sides of WSGI.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.validate import validator

from . import bare, flask_app
from .django_project import wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MOUNTED: dict[str, WSGIApplication] = {
    "/bare": bare.application,
    "/flask": flask_app.application,
    "/django": wsgi.application,
}
MOUNTED |= {f"/checked{place}": validator(application) for place, application in MOUNTED.items()}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    place, _, route = environ["PATH_INFO"].rpartition("/")
    environ["SCRIPT_NAME"] += place
    environ["PATH_INFO"] = f"/{route}"
    return MOUNTED[place](environ, start_response)
