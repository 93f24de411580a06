"""The application that the servers of these tests run: views with producers, and what the process holds."""

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
from flask import Flask, abort, g, request

from ssesync import Event, EventStream, Writer, streams
from ssesync_flask import EventStreamResponse, event_stream, event_writer
from tests.live.apps.line import PATIENCE

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")

app = Flask(__name__)
app.config["SSESYNC"] = json.loads(os.environ.get("OPTIONS", "{}"))
#: What happened, in its order.
notes: list[str] = []
leaked: list[int] = []
go = threading.Event()


@app.route("/plain")
def plain() -> str:
    return "plain"


@app.route("/ticks")
@event_stream
def ticks() -> Iterator[Any]:
    yield {"number": 0}
    for number in range(1, 10_000):
        time.sleep(1)
        yield {"number": number}


@app.route("/few")
@event_stream
def few() -> Iterator[Any]:
    for number in range(3):
        yield {"number": number}
        time.sleep(0.03)


@app.route("/waits")
@event_writer
def waits(writer: Writer) -> None:
    """Has an event when it begins, and one when it is let go."""
    writer.write("one")
    go.wait(PATIENCE)
    writer.write("two")


@app.route("/busy")
@event_stream
def busy() -> Iterator[str]:
    text = "x" * int(request.args["size"])
    for _ in range(int(request.args["count"])):
        yield text


@app.route("/stuck")
@event_writer
def stuck(writer: Writer) -> None:
    """In a call that does not see that the client has left."""
    writer.write("one")
    go.wait(PATIENCE)


@app.route("/missing")
@event_stream
def missing() -> Iterator[str]:
    time.sleep(0.06)
    abort(404)
    yield "never"


@app.route("/forks")
@event_stream
def forks() -> Iterator[str]:
    yield "one"
    pid = os.fork()
    if not pid:
        time.sleep(0.5)
        os._exit(0)
    yield str(os.waitpid(pid, 0)[1])
    yield subprocess.run([sys.executable, "-c", "print('program')"], capture_output=True, text=True, check=True).stdout


@app.teardown_request
def note_teardown(error: BaseException | None) -> None:
    if request.path == "/noted" and not g.get("copied"):
        notes.append("teardown of the view" if g.pop("views", False) else "teardown of the producer")


@app.route("/noted")
def noted() -> flask.Response:
    g.views = True

    def produce() -> Iterator[str]:
        g.pop("views", None)
        yield request.path
        go.wait(PATIENCE)
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


@app.route("/queries")
@event_stream
def queries() -> Iterator[str]:
    """A query a second, each of which takes a while, on a pool of 5 connections and 10 more."""
    for _ in range(3):
        with engine.connect() as connection:
            time.sleep(0.02)
            found = connection.execute(sqlalchemy.text("select 42")).scalar()
        yield str(found)
        time.sleep(1)


@app.route("/holds")
@event_stream
def holds() -> Iterator[str]:
    """A connection for as long as the stream lasts."""
    with engine.connect():
        yield "one"
        go.wait(PATIENCE)


@app.route("/bare")
def bare() -> Any:
    writer = Writer()

    def write() -> None:
        for number in range(5):
            writer.write(Event(str(number), id=str(number)))
            time.sleep(0.02)
        writer.finish()

    threading.Thread(target=write, daemon=True).start()
    return EventStreamResponse(EventStream(writer))


@app.route("/go")
def let_go() -> str:
    go.set()
    return "gone"


@app.route("/leak")
def leak() -> str:
    """Open all descriptors that there are, until the test says otherwise by making a file."""
    free = Path(request.args["until"])

    def watch() -> None:
        while not free.exists():
            time.sleep(0.02)
        while leaked:
            os.close(leaked.pop())

    threading.Thread(target=watch, daemon=True).start()
    try:
        while len(leaked) < 100_000:
            leaked.append(os.dup(0))
    except OSError:
        pass
    return str(len(leaked))


@app.route("/state")
def state() -> dict[str, Any]:
    snapshot = streams.snapshot()
    tiers = [stream["tier"] for stream in snapshot["streams"]]
    threads = [thread.name for thread in threading.enumerate()]
    return {
        "pid": os.getpid(),
        "tiers": {tier: tiers.count(tier) for tier in ("detached", "served")},
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(threads),
        "notes": notes,
        "cpu": sum(os.times()[:2]),
        **{name: snapshot[name] for name in ("opened", "refused", "closed", "producers")},
    }
