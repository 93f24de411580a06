"""A WSGI application of ours inside an ASGI server: ``TESTS_BRIDGE`` names what is between. Run by uvicorn."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator

from flask import Flask

from ssesync_flask import event_stream

app = Flask(__name__)


@app.get("/events")
@event_stream(keep_alive=0.05)
def events() -> Iterator[str]:
    yield "first"
    time.sleep(0.3)
    yield "second"


@app.get("/plain")
def plain() -> str:
    return "plain"


module, _, name = os.environ["TESTS_BRIDGE"].rpartition(".")
asgi = getattr(importlib.import_module(module), name)(app)
