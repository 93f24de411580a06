"""The gateway: one connection to the upstream, whose events go to any number of browsers.

Environment: UPSTREAM, the URL of the upstream's stream, and BROKER (memory://), for several processes or machines that
share one connection: sqlite:////srv/prices.db, redis://host.
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
    app.config["SSESYNC"] = {"retry": 1000}  # a page reconnects a second after its connection broke
    sse = SSE(app)
    broker = sse.broker
    upstream = os.environ["UPSTREAM"]

    def with_figures(event):
        """The upstream's event, with figures of the gateway for the page."""
        gateway = {"readers": broker.subscriber_count(CHANNEL), "threads": threading.active_count()}
        return Event.from_json({**event.json(), "gateway": gateway}, type=event.type)

    feed = ChannelFeed(broker, CHANNEL, lambda: EventSource(upstream), transform=with_figures)

    @app.get("/")
    def page():
        return render_template("prices.html")

    @app.get("/events")
    def events():
        feed.start()  # with the first reader; it does nothing if the feed is running already
        # A slow reader needs only the newest prices.
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
