"""A WSGI application of ours inside an ASGI server: ``TESTS_BRIDGE`` names what is between. Run by uvicorn."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

from flask import Blueprint, request

from ssesync import Event
from ssesync_flask import event_stream
from tests.apps import producers

from . import create_app

blueprint = Blueprint("bridged", __name__)


@blueprint.get("/events")
@event_stream(keep_alive=0.05)
def events() -> Iterator[Event]:
    yield from producers.gate(int(request.args["line"]))


module, _, name = os.environ["TESTS_BRIDGE"].rpartition(".")
application = getattr(importlib.import_module(module), name)(create_app(blueprint))
