"""The upstream: a stream of random prices, which counts its connections.

Environment: PRICES_PACE, events a second (4).
"""

import os
import random
import threading
import time

from flask import Flask

from ssesync import Event
from ssesync_flask import event_stream

SYMBOLS = {"ALDER": 84.2, "BIRCH": 31.7, "CEDAR": 152.4, "MAPLE": 12.9, "ROWAN": 67.3, "WILLOW": 240.0}


class Connections:
    """The number of current connections, and of all since the start."""

    def __init__(self):
        self._lock = threading.Lock()
        self.now = self.ever = 0

    def __enter__(self):
        with self._lock:
            self.now += 1
            self.ever += 1

    def __exit__(self, *exc_info):
        with self._lock:
            self.now -= 1


def create_app():
    app = Flask(__name__)
    pause = 1 / float(os.environ.get("PRICES_PACE", "4"))
    connections = Connections()

    @app.get("/prices")
    @event_stream
    def prices():
        quoted = dict(SYMBOLS)
        with connections:
            while True:
                for symbol in quoted:
                    quoted[symbol] = round(quoted[symbol] * random.uniform(0.996, 1.004), 2)
                upstream = {"connections": connections.now, "ever": connections.ever}
                yield Event.from_json({"time": time.time(), "prices": quoted, "upstream": upstream}, type="quote")
                time.sleep(pause)

    return app
