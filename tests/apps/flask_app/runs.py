"""Runs that are started, followed and stopped over HTTP; each producer that begins is written down.

Environment: BROKER, the broker's URL; STARTS, a file that gets a line for each producer that begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Blueprint, Response, request

from ssesync_flask import SSE, EventStreamResponse

from . import create_app

blueprint = Blueprint("runs", __name__)
sse = SSE(broker=os.environ["BROKER"])


def numbers(name: str, count: int, pause: float) -> Iterator[str]:
    with Path(os.environ["STARTS"]).open("a") as starts:
        starts.write(f"{name} {os.getpid()}\n")  # one write, which is atomic
    for number in range(count):
        if pause:
            time.sleep(pause)
        yield f"{name}:{number}"


@blueprint.after_app_request
def name_the_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response


def subject() -> str:
    return request.args.get("subject", "anna")


def arguments() -> tuple[int, float]:
    return request.args.get("count", 100, int), request.args.get("pause", 0.02, float)


@blueprint.post("/runs/<name>")
def start(name: str) -> dict[str, str | int]:
    run = sse.start_run(name, numbers, name, *arguments(), subject=subject())
    return {"name": run.name, "state": run.state, "pid": os.getpid()}


@blueprint.post("/runs/<name>/stream")
def start_and_follow(name: str) -> EventStreamResponse:
    return sse.run(name, numbers, name, *arguments(), subject=subject())


@blueprint.get("/runs/<name>")
def follow(name: str) -> EventStreamResponse:
    return sse.follow_run(name, subject=subject())


@blueprint.post("/runs/<name>/stop")
def stop(name: str) -> dict[str, bool]:
    return {"stopped": sse.stop_run(name, subject=subject())}


application = create_app(blueprint)
sse.init_app(application)
