"""Views whose producers make a stream for one client each. ``OPTIONS`` in the environment are those of the streams."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import sqlalchemy
from flask import Blueprint, abort, g, request

from ssesync import Event, EventStream, Writer
from ssesync_flask import EventStreamResponse, event_stream, event_writer
from tests.apps import process
from tests.apps.line import TIMEOUT

from . import asynchronous, create_app

blueprint = Blueprint("answers", __name__)
#: What happened, in its order.
notes: list[str] = []
go = threading.Event()


@blueprint.route("/ticks")
@event_stream
def ticks() -> Iterator[Any]:
    yield {"number": 0}
    for number in range(1, 10_000):
        time.sleep(1)
        yield {"number": number}


@blueprint.route("/few")
@event_stream
def few() -> Iterator[Any]:
    for number in range(3):
        yield {"number": number}
        time.sleep(0.03)


@blueprint.route("/waits")
@event_writer
def waits(writer: Writer) -> None:
    """Has an event when it begins, and one when it is let go."""
    writer.write("one")
    go.wait(TIMEOUT)
    writer.write("two")


@blueprint.route("/busy")
@event_stream
def busy() -> Iterator[str]:
    text = "x" * int(request.args["size"])
    for _ in range(int(request.args["count"])):
        yield text


@blueprint.route("/stuck")
@event_writer
def stuck(writer: Writer) -> None:
    """In a call that does not see that the client has left."""
    writer.write("one")
    go.wait(TIMEOUT)


@blueprint.route("/missing")
@event_stream
def missing() -> Iterator[str]:
    time.sleep(0.15)  # the first time longer than a stream waits for its first event, the second time not
    abort(404)
    yield "never"


@blueprint.route("/forks")
@event_stream
def forks() -> Iterator[str]:
    yield "one"
    pid = os.fork()
    if not pid:
        time.sleep(0.5)
        os._exit(0)
    yield str(os.waitpid(pid, 0)[1])
    yield subprocess.run([sys.executable, "-c", "print('program')"], capture_output=True, text=True, check=True).stdout


@blueprint.teardown_app_request
def note_teardown(error: BaseException | None) -> None:
    if request.path == "/noted" and not g.get("copied"):
        notes.append("teardown of the view" if g.pop("views", False) else "teardown of the producer")


@blueprint.route("/noted")
def noted() -> flask.Response:
    g.views = True

    def produce() -> Iterator[str]:
        g.pop("views", None)
        yield request.path
        go.wait(TIMEOUT)
        notes.append("the producer's end")

    response = EventStreamResponse(produce, on_close=lambda reason, stats: notes.append(f"on_close {reason}"))
    response.call_on_close(lambda: notes.append("call_on_close"))
    return response


engine = sqlalchemy.create_engine(
    "sqlite://",
    connect_args={"check_same_thread": False},
    poolclass=sqlalchemy.QueuePool,
    pool_timeout=float(os.environ.get("POOL", "30")),
)


@blueprint.route("/queries")
@event_stream
def queries() -> Iterator[str]:
    """A query a second, each of which takes a while, on a pool of 5 connections and 10 more."""
    for _ in range(3):
        with engine.connect() as connection:
            time.sleep(0.02)
            found = connection.execute(sqlalchemy.text("select 42")).scalar()
        yield str(found)
        time.sleep(1)


@blueprint.route("/holds")
@event_stream
def holds() -> Iterator[str]:
    """A connection for as long as the stream lasts."""
    with engine.connect():
        yield "one"
        go.wait(TIMEOUT)


@blueprint.route("/bare")
def bare() -> Any:
    writer = Writer()

    def write() -> None:
        for number in range(5):
            writer.write(Event(str(number), id=str(number)))
            time.sleep(0.02)
        writer.finish()

    threading.Thread(target=write, daemon=True).start()
    return EventStreamResponse(EventStream(writer))


@blueprint.route("/go")
def let_go() -> str:
    go.set()
    return "gone"


@blueprint.route("/leak")
def leak() -> str:
    return str(process.leak(Path(request.args["until"])))


@blueprint.route("/state")
def state() -> dict[str, Any]:
    held = {"descriptors": len(process.descriptors()), "notes": notes, "cpu": sum(os.times()[:2])}
    return {**process.counts(), **held}


process.log_to_stderr(logging.WARNING)
application = create_app(blueprint, asynchronous.blueprint, SSESYNC=json.loads(os.environ.get("OPTIONS", "{}")))
