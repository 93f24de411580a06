"""Live statistics of this server, and a job with a progress bar."""

import time

import job as work
import stats as statistics
from flask import Flask, current_app, render_template

from ssesync import Event
from ssesync_flask import SSE, event_stream, event_writer

sse = SSE()


def create_app(**config):
    app = Flask(__name__)
    app.config.from_mapping(
        INTERVAL=0.5,  # seconds between two samples
        PAUSE=0.05,  # seconds between two steps of the job, so that its progress is visible
        SSESYNC={"retry": 1000},  # a page reconnects a second after its connection broke
    )
    app.config.from_prefixed_env("LIVE")  # LIVE_INTERVAL=2
    app.config.from_mapping(config)
    sse.init_app(app)
    app.add_url_rule("/", view_func=page)
    app.add_url_rule("/stats", view_func=stats)
    app.add_url_rule("/job", view_func=job)
    return app


def page():
    return render_template("live.html")


@event_stream
def stats():
    """A generator view: every item is an event."""
    yield Event.from_json(statistics.host(), type="host")
    sampler = statistics.Sampler()
    while True:
        time.sleep(current_app.config["INTERVAL"])
        yield Event.from_json(sampler.sample(), type="sample")


def is_finished(last_event_id):
    """Whether this client has the job's last event. It is then answered with 204, and does not reconnect."""
    return work.steps_done(last_event_id) == work.STEPS


@event_writer(finished=is_finished)
def job(w):
    """An imperative view. IDs are the percentage, so a client that reconnects resumes the job there."""
    for percent, result in work.run(done=work.steps_done(w.last_event_id)):
        if w.cancelled.wait(current_app.config["PAUSE"]):
            return
        if percent < work.STEPS:
            w.write_event(result, type="progress", id=percent)
        else:
            w.finish(result, type="done", id=percent)
