"""The routes of ``frameworks``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views import View

from ssesync import Event, Writer
from ssesync_django import EventStreamResponse, event_stream, event_writer
from tests.apps import facts, producers
from tests.apps.django_project import database


def cors(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(*args, **kwargs)
        response["Access-Control-Allow-Origin"] = "https://example.org"
        return response

    return wrapper


def line_and_key(request: HttpRequest) -> tuple[int, str]:
    return int(request.GET["line"]), request.GET.get("key", "")


@cors
@event_stream
def gate(request: HttpRequest) -> Iterator[Event]:
    return producers.gate(*line_and_key(request))


class Writing(View):
    """A view in a class, where the request is the second argument."""

    @event_writer
    def get(self, request: HttpRequest, w: Writer) -> None:
        producers.gate_writer(w, *line_and_key(request))


def leave(request: HttpRequest) -> EventStreamResponse:
    line, key = line_and_key(request)
    return EventStreamResponse(
        lambda: producers.gate(line, key), request=request, keep_alive=0.1, on_close=producers.report_close(line, key)
    )


async def awaited(request: HttpRequest) -> EventStreamResponse:
    """Has its first event only when the test says so, and waits for it."""
    line, key = line_and_key(request)
    return EventStreamResponse(lambda: producers.gate(line, key), request=request, first_event_timeout=60)


@event_stream(keep_alive=None)
def flood(request: HttpRequest) -> Iterator[Event]:
    return producers.flood(*(int(request.GET[name]) for name in ("line", "count", "size")))


@event_stream(first_event_timeout=20)
def failing(request: HttpRequest) -> Iterator[Event]:
    yield from producers.failing()


@event_stream(first_event_timeout=20)
def forbidden(request: HttpRequest) -> Iterator[Event]:
    raise PermissionDenied
    yield Event("never")


@event_stream(first_event_timeout=20)
def missing(request: HttpRequest) -> Iterator[Event]:
    raise Http404
    yield Event("never")


def crowd(request: HttpRequest) -> EventStreamResponse:
    return EventStreamResponse(producers.crowd(Writer()))


@event_stream(finished=lambda last_event_id: last_event_id == "2")
def finished(request: HttpRequest) -> Iterator[Event]:
    facts.note(request.GET.get("key", ""), "started")
    yield from producers.ticks()


@event_stream
def ticks(request: HttpRequest) -> Iterator[Event]:
    yield from producers.ticks()


def uses_database(request: HttpRequest) -> EventStreamResponse:
    """Uses the database in the view, and in the producer when told to."""
    database.query()
    line, key = line_and_key(request)
    facts.note(key, "in_view", database.open_connections())

    def query() -> dict[str, Any]:
        database.query()
        return database.open_connections()

    answers = {"count": database.open_connections, "query": query}
    return EventStreamResponse(lambda: producers.gate(line, key, answers))


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


def facts_of(request: HttpRequest) -> JsonResponse:
    return JsonResponse(facts.of(request.GET["of"]))
