"""An application with Flask-Compress and functions that change its responses."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request
from flask_compress import Compress

from ssesync import Event, streams
from ssesync_flask import SSE, event_stream

from . import create_app

blueprint = Blueprint("compressed", __name__)
sse = SSE()
blueprint.record_once(lambda state: Compress(state.app))
blueprint.record_once(lambda state: sse.init_app(state.app))
ended: list[str] = []


@blueprint.get("/etag")
@event_stream
def etag() -> Iterator[Event]:
    try:
        for number in itertools.count():
            yield Event(str(number), id=number)
            time.sleep(0.05)
    finally:
        ended.append("etag")


@blueprint.get("/three")
@event_stream
def three() -> Iterator[Event]:
    for number in range(3):
        yield Event("x" * 300, id=number)


@blueprint.get("/etag/room")
@blueprint.get("/counted/room")
@blueprint.get("/room")
def room() -> Response:
    return sse.subscribe("room", on_close=lambda reason, stats: ended.append(f"{request.path} {reason}"))


@blueprint.get("/publish")
def publish() -> str:
    return sse.publish("room", "hello")


@blueprint.get("/publish/child")
def publish_in_child() -> str:
    child = multiprocessing.get_context("fork").Process(target=sse.publish, args=("room", "of the child"))
    child.start()
    child.join()
    return "done"


@blueprint.get("/state")
def state() -> str:
    tiers = {stream["name"]: stream["tier"] for stream in streams.snapshot()["streams"]}
    return json.dumps({"ended": ended, "tiers": tiers})


@blueprint.after_app_request
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


application = create_app(blueprint, COMPRESS_MIMETYPES=["text/event-stream"])
