"""Subscriptions by the query. ``TESTS_BROKER`` in the environment names the broker, ``TESTS_REFUSED`` a folder of keys
that are refused, each a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Blueprint, Request, Response, request

import ssesync
from ssesync_flask import SSE
from tests.apps.process import log_to_stderr
from tests.apps.worker import Worker, noting, options_of

from . import create_app

blueprint = Blueprint("events", __name__)
sse = SSE(broker=os.environ["TESTS_BROKER"])
refused = Path(os.environ.get("TESTS_REFUSED", "/nowhere"))


def is_allowed(request: Request, channel: str) -> bool:
    return not (refused / request.args.get("key", "")).is_file()


@blueprint.get("/events")
def events() -> Response:
    key = request.args.get("key", "")
    return sse.subscribe(
        *request.args.getlist("channel"),
        patterns=request.args.getlist("pattern"),
        authorize=is_allowed,
        key=key or None,
        on_close=noting(key, request.args.get("on_close_line")),
        headers={"X-Worker": str(os.getpid())},
        **options_of(request.args.to_dict()),
    )


log_to_stderr()
flask_app = create_app(blueprint)
sse.init_app(flask_app)
application = Worker(flask_app, lambda: sse.broker)

if os.environ.get("TESTS_USE_EARLY"):
    # With --preload this is in the process that forks the workers: with files, connections and a thread of the broker.
    early = sse.broker.subscribe("early")
    sse.publish("early", "published before any worker was there")

if os.environ.get("TESTS_DRAIN"):
    ssesync.drain_on_signal()
