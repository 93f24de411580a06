"""A WSGI application of ours inside an ASGI server: ``TESTS_BRIDGE`` names what is between. Run by uvicorn."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

from flask import Flask, request

from ssesync import Event
from ssesync_flask import event_stream
from tests.live.apps import producers

app = Flask(__name__)


@app.get("/events")
@event_stream(keep_alive=0.05)
def events() -> Iterator[Event]:
    yield from producers.gate(int(request.args["line"]))


@app.get("/plain")
def plain() -> str:
    return "plain"


module, _, name = os.environ["TESTS_BRIDGE"].rpartition(".")
asgi = getattr(importlib.import_module(module), name)(app)
