"""The application in Django."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

import ssesync_django
from tests.live.apps import facts
from tests.live.streams.django_app import open_connections, query

from .events import options_of, publish

Answer = Callable[[HttpRequest], HttpResponseBase]
_here = threading.local()


@receiver(request_finished)
def _note_end(**_: Any) -> None:
    if getattr(_here, "name", None):
        facts.note(_here.name, "request_finished", threading.current_thread().name)
        _here.name = None


def zipping(get_response: Answer) -> Answer:
    """GZipMiddleware for those who want it even where the answer says no."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if "gzip" in request.GET:
            response.headers.pop("Content-Encoding", None)
            response = GZipMiddleware(get_response).process_response(request, response)  # type: ignore[arg-type]
        return response

    return middleware


def cors(get_response: Answer) -> Answer:
    """As django-cors-headers does it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if "cors" in request.GET:
            response["Access-Control-Allow-Origin"] = "https://example.org"
        return response

    return middleware


@csrf_exempt
def events(request: HttpRequest, name: str) -> HttpResponseBase:
    _here.name = name
    request.session["visits"] = request.session.get("visits", 0) + 1
    if "reads" in request.GET:
        facts.note(name, "body", len(request.body))
    if "database" in request.GET:
        query()
        facts.note(name, "connections", open_connections())
    channels = request.GET.get("channel", name).split(",")
    return ssesync_django.subscribe(request, *channels, **options_of(name, request.GET))


@csrf_exempt
def publish_all(request: HttpRequest) -> HttpResponse:
    data = json.loads(request.body)
    return JsonResponse(publish(ssesync_django.publish, request.GET["channel"], data), safe=False)


def ping(request: HttpRequest) -> HttpResponse:
    return HttpResponse("pong")


def visits(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.session.get("visits", 0)))


urlpatterns = [
    path("events/<name>", events),
    path("publish", publish_all),
    path("ping", ping),
    path("visits", visits),
]
