"""Subscriptions that other workers can take over: with Flask, and with Django where ``TESTS_DJANGO`` is set.

``TESTS_BROKER`` in the environment names the broker. ``TESTS_LOADING`` names a file: its text is the number of seconds
that loading takes, or ``die``.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - a later import may not be possible, if workers run as another user
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssesync
from tests.apps.process import log_to_stderr

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log_to_stderr()
loading = Path(os.environ.get("TESTS_LOADING", "/nowhere"))
if loading.exists():
    if (wanted := loading.read_text()) == "die":
        os.kill(os.getpid(), 9)
    time.sleep(float(wanted))


def flask_application() -> WSGIApplication:
    from flask import Flask, Response, request

    from ssesync_flask import SSE

    app = Flask(__name__)
    sse = SSE(app, broker=os.environ["TESTS_BROKER"])

    @app.get("/events")
    def events() -> Response:
        options: dict[str, Any] = json.loads(request.args.get("options", "{}"))
        if "on_close" in request.args:
            options["on_close"] = lambda reason, stats: None
        return sse.subscribe(request.args["channel"], **options)

    return app


def django_application() -> WSGIApplication:
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, HttpResponseBase
    from django.urls import path

    from ssesync_django import subscribe

    def events(request: HttpRequest) -> HttpResponseBase:
        return subscribe(request, request.GET["channel"])

    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["ssesync_django"],
        ROOT_URLCONF=(path("events", events),),
        SECRET_KEY="of the tests",
        SSESYNC_BROKER=os.environ["TESTS_BROKER"],
    )
    django.setup()
    return get_wsgi_application()


serve = django_application() if os.environ.get("TESTS_DJANGO") else flask_application()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer ``/plain`` and ``/state``, and have the framework answer all else."""
    if environ["PATH_INFO"] in ("/plain", "/state"):
        state = json.dumps({**ssesync.streams.snapshot(), "worker": os.getpid()})
        start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [b"plain" if environ["PATH_INFO"] == "/plain" else state.encode()]
    return serve(environ, start_response)
