"""Streams that stay with their server: ``/stream`` in plain WSGI, ``/flask/stream`` in Flask. ``/state`` is what the
process holds.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask.ctx import AppContext

import ssesync
from ssesync import Event

from . import process
from .flask_app import create_app, streams
from .wsgi import in_json, mounted, text
from .wsgi.streams import serve_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

process.log_to_stderr()


def state() -> dict[str, Any]:
    gc.collect()
    return {
        **process.state(),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": len(process.descriptors()),
        "contexts": sum(isinstance(thing, AppContext) for thing in gc.get_objects()),
    }


def otherwise(environ: WSGIEnvironment) -> WSGIApplication:
    if environ["PATH_INFO"] == "/stream":
        return serve_stream
    return in_json(state()) if environ["PATH_INFO"] == "/state" else text("plain")


application = mounted({"/flask": create_app(streams.blueprint)}, otherwise)

if os.environ.get("TESTS_DRAIN"):
    ssesync.drain_on_signal(farewell=Event("goodbye", type="farewell"))
