"""Subscriptions whose streams leave the server, and what is noted of their requests."""

from __future__ import annotations

import json
import threading
from typing import Any

from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

import ssesync_django
from tests.apps import facts
from tests.apps.django_project import database
from tests.apps.subscriptions import options_of, publish

_here = threading.local()


@receiver(request_finished)
def _note_end(**_: Any) -> None:
    if getattr(_here, "name", None):
        facts.note(_here.name, "request_finished", threading.current_thread().name)
        _here.name = None


@csrf_exempt
def events(request: HttpRequest, name: str) -> HttpResponseBase:
    _here.name = name
    request.session["visits"] = request.session.get("visits", 0) + 1
    if "reads" in request.GET:
        facts.note(name, "body", len(request.body))
    if "database" in request.GET:
        database.query()
        facts.note(name, "connections", database.open_connections())
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
