"""A gateway to another server."""

from __future__ import annotations

from django.http import HttpRequest

from ssesync_django import EventStreamResponse
from tests.apps.relays import OPTIONS, relay_to


def relay(request: HttpRequest, path: str) -> EventStreamResponse:
    return EventStreamResponse(relay_to(request, f"/{path}"), **OPTIONS)
