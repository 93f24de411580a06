"""A gateway to another server."""

from __future__ import annotations

from flask import Blueprint, Response, request

from ssesync_flask import EventStreamResponse
from tests.apps.relays import OPTIONS, relay_to

blueprint = Blueprint("relays", __name__)


@blueprint.get("/relay/<path>")
def relay(path: str) -> Response:
    return EventStreamResponse(relay_to(request, f"/{path}"), **OPTIONS)
