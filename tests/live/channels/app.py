"""The application that the servers of these tests run: streams of channels, and a look at what the process holds.

``TESTS_BROKER`` names the broker, ``TESTS_REFUSED`` a folder of keys that are refused, each a file.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import flask
from flask import request

import ssesync
from ssesync import CloseReason, StreamStats
from ssesync_flask import SSE

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(process)d: %(message)s")

app = flask.Flask(__name__)
# Clients come back as soon as they are told they may.
sse = SSE(app, broker=os.environ["TESTS_BROKER"], retry=100)
refused = Path(os.environ["TESTS_REFUSED"])
closed: dict[str, list[str]] = defaultdict(list)

if os.environ.get("TESTS_USE_EARLY"):
    # With --preload this is in the process that forks the workers: with files, connections and a thread of the broker.
    early = sse.broker.subscribe("early")
    sse.publish("early", "published before any worker was there")


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/events")
def events() -> flask.Response:
    key = request.args.get("key", "")

    def note(reason: CloseReason, stats: StreamStats) -> None:
        closed[key].append(reason.value)

    return sse.subscribe(
        *request.args.getlist("channel"),
        patterns=request.args.getlist("pattern"),
        authorize=lambda request, channel: not (refused / key).is_file(),
        key=key,
        on_close=note,
        patience=1.0,
        headers={"X-Worker": str(os.getpid())},
    )


@app.get("/state")
def state() -> dict[str, object]:
    pending = [stream["pending_bytes"] for stream in ssesync.streams.snapshot()["streams"]]
    return {
        "worker": os.getpid(),
        "closed": closed,
        "broker": sse.broker.snapshot(),
        "most_pending": max(pending, default=0),
    }


@app.post("/flood")
def flood() -> dict[str, object]:
    """Publish in the very process that serves the streams."""
    first, count, size = (int(request.args[name]) for name in ("first", "count", "size"))
    started = time.monotonic()
    for number in range(first, first + count):
        sse.publish("flood", f"{number} ".ljust(size, "x"))
    return {"seconds": time.monotonic() - started}


@app.post("/revoke")
def revoke() -> str:
    sse.revoke(request.args["key"], request.args.get("channel"))
    return ""
