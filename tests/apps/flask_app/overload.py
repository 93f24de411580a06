"""A subscription, ordinary views, and ways to use up descriptors.

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
from pathlib import Path
from typing import Any

from flask import Blueprint, request

from ssesync_flask import SSE
from tests.apps import process

from . import create_app

blueprint = Blueprint("overload", __name__)
sse = SSE(broker=os.environ.get("BROKER", "memory://"), **json.loads(os.environ.get("OPTIONS", "{}")))
blueprint.record_once(lambda state: sse.init_app(state.app))
PAGE = """<!doctype html><title>page</title><link rel="icon" href="data:,"><script>
const seen = [], source = new EventSource("/events");
source.onopen = () => seen.push("open");
source.onerror = () => seen.push("error " + source.readyState);
source.onmessage = (event) => seen.push(event.data);
</script>"""


@blueprint.route("/events", methods=["GET", "POST"])
def events() -> Any:
    return sse.subscribe("all")


@blueprint.get("/page")
def page() -> str:
    return PAGE


@blueprint.get("/publish")
def publish() -> str:
    sse.publish("all", request.args["text"])
    return "published"


@blueprint.get("/leak")
def leak() -> str:
    return str(process.leak(Path(request.args["until"])))


@blueprint.get("/limits")
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


process.log_to_stderr(logging.WARNING)
application = create_app(blueprint)
