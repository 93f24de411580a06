"""Streams whose producers use the database at each step."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from ssesync import Event
from ssesync_django import EventStreamResponse
from tests.apps.django_project import database
from tests.apps.line import Line


def stream(request: HttpRequest) -> EventStreamResponse:
    """One query, and one event with its result, for each word of the test's. The view itself makes one too."""
    database.query()
    line = int(request.GET["line"])
    release = {"step": "step", "start": "start", "none": None}[request.GET["release_db"]]

    def events() -> Iterator[Event]:
        with Line.call(line) as test:
            for order in test:
                if order.get("do") == "end":
                    return
                if order.get("do") == "atomic":
                    with transaction.atomic():
                        yield Event(str(database.query()))
                else:
                    yield Event(str(database.query()))

    return EventStreamResponse(events, request=request, release_db=release, max_streams=None, first_event_timeout=0)


def connections(request: HttpRequest) -> JsonResponse:
    return JsonResponse(database.open_connections())
