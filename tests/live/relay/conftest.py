"""Upstreams that play scripts, and gateways in a thread: bare WSGI, Flask and Django."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import path
from flask import Flask, request
from werkzeug.serving import make_server

import ssesync_django
import ssesync_flask
from ssesync import EventStream
from ssesync.testing import FakeSSEServer

#: What every stream opens with.
OPENING = b":ok\n"


@pytest.fixture
def upstream() -> Iterator[Callable[..., FakeSSEServer]]:
    """Starts a server that plays a script."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(FakeSSEServer(script))


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def ask(session: requests.Session) -> Iterator[Callable[..., requests.Response]]:
    """Asks an upstream for its stream. The response is closed with the test."""
    with ExitStack() as stack:

        def get(server: FakeSSEServer, **options: Any) -> requests.Response:
            return stack.enter_context(session.get(server.url, stream=True, timeout=(10, None), **options))

        yield get


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    # Asked often whether to end: there are many tests.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join(90)
        server.server_close()


def bare_gateway(make: Callable[[Any], Any], **options: Any) -> Any:
    return lambda environ, start_response: EventStream(make(environ), **options)(environ, start_response)


def flask_gateway(make: Callable[[Any], Any], **options: Any) -> Any:
    app = Flask(__name__)

    @app.route("/", methods=["GET", "POST"])
    def view() -> Any:
        return ssesync_flask.EventStreamResponse(make(request), **options)

    return app


def django_gateway(make: Callable[[Any], Any], **options: Any) -> Any:
    def view(request: Any) -> Any:
        return ssesync_django.EventStreamResponse(make(request), request=request, **options)

    urls = types.ModuleType("urls_of_a_gateway")
    urls.urlpatterns = [path("", view)]  # type: ignore[attr-defined]
    return override_settings(ROOT_URLCONF=urls), WSGIHandler()


SKINS = {"bare": bare_gateway, "flask": flask_gateway, "django": django_gateway}


@pytest.fixture(params=SKINS)
def skin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gateway() -> Iterator[Callable[..., str]]:
    """Starts a gateway whose source is what ``make`` gives for a request; its URL."""
    with ExitStack() as stack:

        def start(make: Callable[[Any], Any], skin: str = "flask", **options: Any) -> str:
            app = SKINS[skin](make, **options)
            if isinstance(app, tuple):
                settings, app = app
                stack.enter_context(settings)
            return stack.enter_context(serving(app))

        yield start
