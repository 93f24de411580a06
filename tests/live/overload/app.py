"""The application that the servers of these tests run: a subscription, ordinary views, and ways to use up descriptors.

``OPTIONS`` in the environment are the options of the streams.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from flask import Flask, request

from ssesync import streams
from ssesync_flask import SSE

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")

app = Flask(__name__)
sse = SSE(app, broker=os.environ.get("BROKER", "memory://"), **json.loads(os.environ.get("OPTIONS", "{}")))
leaked: list[int] = []
PAGE = """<!doctype html><title>page</title><link rel="icon" href="data:,"><script>
const seen = [], source = new EventSource("/events");
source.onopen = () => seen.push("open");
source.onerror = () => seen.push("error " + source.readyState);
source.onmessage = (event) => seen.push(event.data);
</script>"""


@app.route("/events", methods=["GET", "POST"])
def events() -> Any:
    return sse.subscribe("all")


@app.get("/page")
def page() -> str:
    return PAGE


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/publish")
def publish() -> str:
    sse.publish("all", request.args["text"])
    return "published"


@app.get("/state")
def state() -> dict[str, Any]:
    snapshot = streams.snapshot()
    tiers = [stream["tier"] for stream in snapshot["streams"]]
    return {
        "pid": os.getpid(),
        "tiers": {tier: tiers.count(tier) for tier in ("detached", "served")},
        **{name: snapshot[name] for name in ("opened", "refused", "closed")},
    }


@app.get("/leak")
def leak() -> str:
    """Open all descriptors that there are, until the test says otherwise by making a file."""
    free = Path(request.args["until"])

    def watch() -> None:
        asked = threading.Event()
        while not free.exists():
            asked.wait(0.02)
        while leaked:
            os.close(leaked.pop())

    threading.Thread(target=watch, daemon=True).start()
    try:
        while True:
            leaked.append(os.dup(0))
    except OSError:
        return str(len(leaked))


@app.get("/limits")
def limits() -> dict[str, Any]:
    """What this process and its children have for limits, and whether ``select()`` works with a new socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shell = subprocess.run(["sh", "-c", "ulimit -Sn; ulimit -Hn"], capture_output=True, text=True, check=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    forked = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    with socket.socket() as fresh:
        select.select([], [fresh], [], 0)
        number = fresh.fileno()
    return {
        "own": [soft, hard],
        "program": [int(each) for each in shell.stdout.split()],
        "forked": forked,
        "fd": number,
    }
