"""Live statistics of this server, and a job that survives reloads."""

import time
import uuid
from pathlib import Path

import job as work
import stats as statistics
from flask import Flask, current_app, render_template

from ssesync import Event
from ssesync_flask import SSE, event_stream

sse = SSE()


def create_app(**config):
    app = Flask(__name__)
    app.config.from_mapping(
        INTERVAL=0.5,  # seconds between two samples
        PAUSE=0.05,  # seconds between two steps of the job, so that its progress is visible
        SSESYNC={"retry": 1000},  # a page reconnects a second after its connection broke
        SSESYNC_BROKER=f"sqlite:///{app.instance_path}/jobs.db",  # all processes of this machine have the same jobs
    )
    app.config.from_prefixed_env("LIVE")  # LIVE_INTERVAL=2
    app.config.from_mapping(config)
    Path(app.instance_path).mkdir(exist_ok=True)
    sse.init_app(app)
    app.add_url_rule("/", view_func=page)
    app.add_url_rule("/stats", view_func=stats)
    app.add_url_rule("/jobs", view_func=start_job, methods=["POST"])
    app.add_url_rule("/jobs/<name>", view_func=follow_job)
    app.add_url_rule("/jobs/<name>/stop", view_func=stop_job, methods=["POST"])
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


def job(pause):
    """A run's producer. It runs in the background, whether or not a client follows it."""
    for percent, result in work.run():
        time.sleep(pause)
        yield Event.from_json({"percent": percent, **result}, type="progress")


# A job's name can't be guessed: each client that has it may follow and stop the job. With users, it is the user's id.
SUBJECT = ""


def start_job():
    name = f"job-{uuid.uuid4().hex}"
    sse.start_run(name, job, current_app.config["PAUSE"], subject=SUBJECT)
    return {"name": name}, 202


def follow_job(name):
    return sse.follow_run(name, subject=SUBJECT)


def stop_job(name):
    return {"stopped": sse.stop_run(name, subject=SUBJECT)}
