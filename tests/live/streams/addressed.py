"""Applications whose streams are limited by address, for tests with a proxy in front: Flask and Django, as they come
and with ``REMOTE_ADDR`` set from the proxy's header as the pages tell it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

import ssesync_django
import ssesync_flask

OPTIONS: dict[str, Any] = {"max_streams_per_key": 1, "max_streams": None}


def silence(*args: Any) -> Iterator[str]:
    yield "first"
    time.sleep(60)


flask_app = Flask(__name__)
flask_app.add_url_rule("/events", view_func=ssesync_flask.event_stream(**OPTIONS)(silence))


class RealAddress:
    """The address that the one proxy in front has seen, as a Django middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if "mended" in request.GET:
            request.META["REMOTE_ADDR"] = request.META["HTTP_X_FORWARDED_FOR"].rpartition(",")[2].strip()
        return self.get_response(request)


settings.configure(
    SECRET_KEY="for tests only", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.RealAddress"]
)
django.setup()
urlpatterns = [path("events", ssesync_django.event_stream(**OPTIONS)(silence))]
django_app = get_wsgi_application()


def plain(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]


MOUNTED: dict[str, Any] = {
    "": plain,
    "/flask": flask_app,
    "/flask_mended": ProxyFix(flask_app, x_for=1),
    "/django": django_app,
    "/django_mended": django_app,
}


def application(environ: Any, start_response: Any) -> Any:
    place, _, route = environ["PATH_INFO"].rpartition("/")
    environ["PATH_INFO"] = f"/{route}"
    environ["QUERY_STRING"] = place.partition("_")[2]
    return MOUNTED[place](environ, start_response)
