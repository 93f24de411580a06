"""The application of benchmarks.deploys: subscriptions to a channel, a plain view, and what it has moved."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request

from ssesync_flask import SSE

#: Milliseconds of each batch of clients that this process has moved to another one.
moves: list[float] = []


def application() -> Any:
    """The application that gunicorn serves. ``BENCH_BROKER`` is its broker's URL."""
    app = Flask(__name__)
    sse = SSE(app, broker=os.environ["BENCH_BROKER"], retry=int(os.environ.get("BENCH_RETRY", "1000")))
    app.add_url_rule("/events", "events", lambda: sse.subscribe(request.args["channel"]))
    app.add_url_rule("/plain", "plain", lambda: ("plain", {"X-Worker": str(os.getpid())}))
    app.add_url_rule("/moves", "moves", lambda: moves)
    return app
