"""The Flask application that the servers of these tests run. ``TESTS_BROKER`` names the broker."""

from __future__ import annotations

import os

import flask
from flask import request

import ssesync
from ssesync_flask import SSE

from .common import Common, noting, options_of

app = flask.Flask(__name__)
sse = SSE(app, broker=os.environ["TESTS_BROKER"])

if os.environ.get("TESTS_USE_EARLY"):
    # With --preload this is in the process that forks the workers.
    early = sse.broker.subscribe("early")
    sse.publish("early", "published before any worker was there")


@app.get("/events")
def events() -> flask.Response:
    key = request.args.get("key", "")
    return sse.subscribe(
        *request.args.getlist("channel"),
        key=key or None,
        on_close=noting(key, request.args.get("on_close_line")),
        headers={"X-Worker": str(os.getpid())},
        **options_of(request.args.to_dict()),
    )


application = Common(app, lambda: sse.broker)

if os.environ.get("TESTS_DRAIN"):
    ssesync.drain_on_signal()
