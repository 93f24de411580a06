"""Channels: subscriptions, published events within transactions, revocations, tickets."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from ssesync import streams
from ssesync_django import get_broker, issue_ticket, publish, revoke, subscribe, ticket_required


def headers() -> dict[str, str]:
    return {"X-Worker": str(os.getpid())}


def uses_the_database(request: HttpRequest, channel: str) -> bool:
    with connection.cursor() as cursor:
        return bool(cursor.execute("SELECT 1").fetchone()[0])


def events(request: HttpRequest) -> HttpResponseBase:
    return subscribe(request, "a", authorize=uses_the_database, key=request.GET.get("key"), headers=headers())


def changed(request: HttpRequest) -> HttpResponseBase:
    response = subscribe(request, "a", headers=headers())
    response.streaming_content = (chunk.replace(b"data: ", b"data: changed ") for chunk in response.streaming_content)
    return response


async def awaited(request: HttpRequest) -> HttpResponseBase:
    return subscribe(request, "a", authorize=uses_the_database, headers=headers())


@ticket_required
def ticketed(request: Any) -> HttpResponseBase:
    return subscribe(request, *request.ticket.channels, key=request.ticket.subject, headers=headers())


class Undone(Exception):
    pass


@csrf_exempt
def act(request: HttpRequest) -> HttpResponseBase:
    for text in request.GET.getlist("publish"):
        with transaction.atomic():
            publish("a", text)
    for text in request.GET.getlist("undo"):
        with contextlib.suppress(Undone), transaction.atomic():
            publish("a", text)
            raise Undone
    for key in request.GET.getlist("revoke"):
        revoke(key)
    return HttpResponse(headers=headers())


def state(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(
        {
            "subscribers": get_broker().subscriber_count("a", local=True),
            "tiers": {stream["name"]: stream["tier"] for stream in streams.snapshot()["streams"]},
            "ticket": issue_ticket("ada", channels=["a"]),
        },
        headers=headers(),
    )
