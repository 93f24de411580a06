"""The application of benchmarks.deploys: subscriptions to a channel, a plain view, and what it has moved."""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Flask, request

from ssesync.keeper.exporting import Exporter, Moved
from ssesync_flask import SSE

#: Clients and milliseconds of each batch that this process has moved to another one.
moves: list[tuple[int, float]] = []


def time_moves() -> None:
    """Time all moves from now on."""
    plain_move = Exporter.move

    def timed_move(self: Exporter, *most: int) -> Moved:
        start = time.monotonic()
        moved = plain_move(self, *most)
        if moved.moved:
            moves.append((moved.moved, (time.monotonic() - start) * 1e3))
        return moved

    Exporter.move = timed_move  # type: ignore[method-assign]


def application() -> Any:
    """The application that gunicorn serves. ``BENCH_BROKER`` is its broker's URL."""
    time_moves()
    app = Flask(__name__)
    sse = SSE(app, broker=os.environ["BENCH_BROKER"], retry=int(os.environ.get("BENCH_RETRY", "1000")))
    app.add_url_rule("/events", "events", lambda: sse.subscribe(request.args["channel"]))
    app.add_url_rule("/plain", "plain", lambda: ("plain", {"X-Worker": str(os.getpid())}))
    app.add_url_rule("/moves", "moves", lambda: moves)
    return app
