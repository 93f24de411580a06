"""A producer that the test orders to read what belongs to its request, and to use the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.core.signals import request_finished, request_started
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone, translation
from django.views.decorators.csrf import csrf_exempt

from ssesync import Event
from ssesync_django import EventStreamResponse
from tests.apps import facts
from tests.apps.led import led, noted, options_of
from tests.apps.line import TIMEOUT

from ..few.base import go

_request = threading.local()  # of a server's thread


def note_start(environ: dict[str, Any], **_: Any) -> None:
    _request.key = facts.query(environ).get("key", "")
    facts.note(_request.key, "signals", "started")


def note_end(**_: Any) -> None:
    facts.note(getattr(_request, "key", ""), "signals", "finished")


def note_requests() -> None:
    """Note the signals of all requests to come, which are those of a WSGI server."""
    request_started.connect(note_start)
    request_finished.connect(note_end)


def execute(statement: str, *values: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def rows(key: str) -> int:
    return int(execute("SELECT count(*) FROM things WHERE name = %s", key)[0][0])


def add(key: str) -> None:
    execute("INSERT INTO things (name) VALUES (%s)", key)


def add_and_count(key: str) -> int:
    """In a transaction of the producer's own."""
    with transaction.atomic():
        add(key)
        return rows(key)


def add_and_fail(key: str) -> None:
    with transaction.atomic():
        add(key)
        raise LookupError("rolled back")


@csrf_exempt
def lead(request: HttpRequest) -> HttpResponseBase:
    """A view that has set what belongs to its request, and a producer that reads it."""
    execute("CREATE TABLE IF NOT EXISTS things (name TEXT)")
    key = request.GET["key"]
    add(key)
    timezone.activate("Asia/Tokyo")
    messages.info(request, "a message")
    request.session["visits"] = request.session.get("visits", 0) + 1

    def save() -> None:
        request.session["late"] = "saved"
        request.session.save()

    steps = {
        "request": lambda: [request.method, request.path, request.GET["key"], request.headers["X-Of-Client"]],
        "session": lambda: request.session["visits"],
        "save session": save,
        "messages": lambda: [str(each) for each in messages.get_messages(request)],
        "translation": lambda: [translation.get_language(), translation.gettext("January")],
        "timezone": lambda: timezone.localtime().tzname(),
        "reverse": lambda: reverse("plain"),
        "rows": lambda: rows(key),
        "atomic": lambda: add_and_count(key),
        "failing": lambda: add_and_fail(key),
        "in atomic": lambda: connection.in_atomic_block,
        "connections": lambda: sum(each.connection is not None for each in connections.all(initialized_only=True)),
        "form": lambda: request.POST["name"],
        "file": lambda: [type(request.FILES["file"]).__name__, len(request.FILES["file"].read())],
    }
    if request.method == "POST":
        request.POST  # noqa: B018  # as the check of a CSRF token reads it
    response = EventStreamResponse(
        lambda: led(int(request.GET["line"]), steps, key),
        request=request,
        on_close=noted(key),
        **options_of(request.GET),
    )
    response._resource_closers.append(lambda: facts.note(key, "order", "resources"))
    return response


def raising(request: HttpRequest) -> HttpResponseBase:
    """The producer raises before its first event: what the view has written is rolled back."""
    execute("CREATE TABLE IF NOT EXISTS things (name TEXT)")
    add(request.GET["key"])

    def events() -> Iterator[Event]:
        raise LookupError("before the first event")
        yield Event("never")

    return EventStreamResponse(events, request=request, first_event_timeout=TIMEOUT)


def waits(request: HttpRequest) -> HttpResponseBase:
    """One query, which waits for the test, on the database with few connections."""

    def events() -> Iterator[str]:
        with connections["few"].cursor() as cursor:
            cursor.execute("SELECT wait(%s)", [TIMEOUT])
            found = cursor.fetchone()[0]
        yield str(found)

    return EventStreamResponse(events, request=request, first_event_timeout=0, **options_of(request.GET))


def hold(request: HttpRequest) -> HttpResponse:
    go.clear()
    return HttpResponse("held")


def let_go(request: HttpRequest) -> HttpResponse:
    go.set()
    return HttpResponse("gone")


def count(request: HttpRequest) -> HttpResponse:
    return JsonResponse(rows(request.GET["of"]), safe=False)


def session(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(request.session))
