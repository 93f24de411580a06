"""An application with Flask-Compress and functions behind its views, for a real server."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request
from flask_compress import Compress

from ssesync import Event, streams
from ssesync_flask import SSE, event_stream

app = Flask(__name__)
app.config["COMPRESS_MIMETYPES"] = ["text/event-stream"]
Compress(app)
sse = SSE(app)
ended: list[str] = []


@app.get("/etag")
@event_stream
def etag() -> Iterator[Event]:
    try:
        for number in itertools.count():
            yield Event(str(number), id=number)
            time.sleep(0.05)
    finally:
        ended.append("etag")


@app.get("/three")
@event_stream
def three() -> Iterator[Event]:
    for number in range(3):
        yield Event("x" * 300, id=number)


@app.get("/etag/room")
@app.get("/counted/room")
@app.get("/room")
def room() -> Response:
    return sse.subscribe("room", on_close=lambda reason, stats: ended.append(f"{request.path} {reason}"))


@app.get("/publish")
def publish() -> str:
    return sse.publish("room", "hello")


@app.get("/publish/child")
def publish_in_child() -> str:
    child = multiprocessing.get_context("fork").Process(target=sse.publish, args=("room", "of the child"))
    child.start()
    child.join()
    return "done"


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/state")
def state() -> str:
    tiers = {stream["name"]: stream["tier"] for stream in streams.snapshot()["streams"]}
    return json.dumps({"ended": ended, "tiers": tiers})


@app.after_request
def after(response: Response) -> Response:
    if request.path.startswith("/etag"):
        response.set_etag("v1")
        response.make_conditional(request)
    if request.path.startswith("/counted"):
        inner: Any = response.response
        response.response = (chunk.upper() for chunk in inner)
    if "compress" in request.args:
        del response.headers["Content-Encoding"]
    return response
