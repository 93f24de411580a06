"""Django views whose producers use the database at each step."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from ssesync import Event
from ssesync_django import EventStreamResponse
from tests.live.apps.line import Line

_opened: weakref.WeakSet[BaseDatabaseWrapper] = weakref.WeakSet()


@receiver(connection_created)
def _keep(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    _opened.add(connection)


def open_connections() -> dict[str, int]:
    """Database connections that this process holds, by Django's book and by the kernel's."""
    database = Path(connections["default"].settings_dict["NAME"]).resolve()
    # One that is gone since the listing resolves to itself.
    files = sum(descriptor.resolve() == database for descriptor in Path("/proc/self/fd").iterdir())
    return {"connections": sum(wrapper.connection is not None for wrapper in list(_opened)), "files": files}


def query() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 41 + 1")
        return int(cursor.fetchone()[0])


def stream(request: HttpRequest) -> EventStreamResponse:
    """One query, and one event with its result, for each word of the test's. The view itself makes one too."""
    query()
    line = int(request.GET["line"])
    release = {"step": "step", "start": "start", "none": None}[request.GET["release_db"]]

    def events() -> Iterator[Event]:
        with Line.call(line) as test:
            for order in test:
                if order.get("do") == "end":
                    return
                if order.get("do") == "atomic":
                    with transaction.atomic():
                        yield Event(str(query()))
                else:
                    yield Event(str(query()))

    return EventStreamResponse(events, request=request, release_db=release, max_streams=None, first_event_timeout=0)


def count(request: HttpRequest) -> JsonResponse:
    return JsonResponse(open_connections())


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


urlpatterns = [path("stream", stream), path("count", count), path("plain", plain)]


def in_a_transaction(get_response: Any) -> Any:
    """A middleware that can hold a transaction for as long as an answer lasts."""

    def middleware(request: HttpRequest) -> Any:
        if "atomic" not in request.GET:
            return get_response(request)
        block = transaction.atomic()
        block.__enter__()
        response = get_response(request)
        response._resource_closers.append(lambda: block.__exit__(None, None, None))
        return response

    return middleware


if os.environ.get("TESTS_DJANGO"):
    django.setup()
    application = get_wsgi_application()
