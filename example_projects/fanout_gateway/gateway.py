"""The gateway: one connection to the upstream, and any number of browsers that get what comes by it.

Environment: UPSTREAM, the address of the upstream's stream, and BROKER (memory://), where several processes or machines
are to share one connection: sqlite:////srv/prices.db, redis://host.
"""

import os
import threading

from flask import Flask, render_template

from ssesync import ChannelFeed, Event, EventSource, streams
from ssesync_flask import SSE

CHANNEL = "prices"


def create_app():
    app = Flask(__name__)
    app.config["SSESYNC_BROKER"] = os.environ.get("BROKER", "memory://")
    app.config["SSESYNC"] = {"retry": 1000}  # a page whose connection breaks is back after a second
    sse = SSE(app)
    broker = sse.broker
    upstream = os.environ["UPSTREAM"]

    def with_figures(event):
        """What the upstream says, and what the page shows of the gateway itself."""
        gateway = {"readers": broker.subscriber_count(CHANNEL), "threads": threading.active_count()}
        return Event.from_json({**event.json(), "gateway": gateway}, type=event.type)

    feed = ChannelFeed(broker, CHANNEL, lambda: EventSource(upstream), transform=with_figures)

    @app.get("/")
    def page():
        return render_template("prices.html")

    @app.get("/events")
    def events():
        feed.start()  # when the first reader comes; whoever comes later finds it running
        # A price that nobody could take in time is worth nothing: the newest stays.
        return sse.subscribe(CHANNEL, overflow="drop_oldest", max_pending_events=32)

    @app.get("/figures")
    def figures():
        tiers = [stream.get("tier") for stream in streams.snapshot()["streams"]]
        return {
            "feed": feed.snapshot(),
            "broker": broker.snapshot(),
            "streams": {"open": len(tiers), "detached": tiers.count("detached")},
        }

    return app
