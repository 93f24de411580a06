"""Contexts: Flask and Django in one process, and both in wrappers of the response.

``/flask`` and ``/django`` are the applications, ``/wrapped/NAME/flask`` and so on are the same within a middleware of
those that ``WRAPPERS`` in the environment names.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import facts, process
from .django_project.wsgi import application as django_application
from .flask_app import contexts, create_app
from .wsgi import in_json, mounted, text
from .wsgi.tracing import WRAPPERS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

process.log_to_stderr()
for name in ("werkzeug", "django.server"):
    logging.getLogger(name).setLevel(logging.WARNING)  # a line for each request

# Only now: Django has to be set up.
import_module("tests.apps.django_project.views.contexts").note_requests()
FOLDER = Path(os.environ["TESTS_DATABASE"]).parent
flask_application = create_app(
    contexts.blueprint,
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{FOLDER / 'sqlalchemy.sqlite3'}",
    SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 1, "max_overflow": 0, "pool_timeout": 10},
)

PLACES: dict[str, WSGIApplication] = {"/flask": flask_application, "/django": django_application}
PLACES |= {
    f"/wrapped/{name}{place}": WRAPPERS[name](application)
    for name in os.environ.get("WRAPPERS", "").split()
    for place, application in list(PLACES.items())
}


with flask_application.app_context():
    engine = contexts.database.engine


def state() -> dict[str, Any]:
    sessions = contexts.database.session.registry.registry
    return {**process.counts(), "sqlalchemy": [engine.pool.checkedout(), len(sessions)]}  # type: ignore[attr-defined]


def limit_threads(query: dict[str, str]) -> str:
    """Have the system refuse new threads, as no stack of 64 TB can be mapped, or allow them again."""
    return str(threading.stack_size(1 << 46 if query["allowed"] == "no" else 0))


def otherwise(environ: WSGIEnvironment) -> WSGIApplication:
    path, query = environ["PATH_INFO"], facts.query(environ)
    if path == "/facts":
        return in_json(facts.of(query["of"]))
    if path == "/state":
        return in_json(state())
    return text(limit_threads(query) if path == "/threads" else "plain")


application = mounted(PLACES, otherwise)
