"""A gateway to a server with OpenAI's chat completions API, or to another gateway: it passes streams on.

Environment: UPSTREAM, that server's URL, and UPSTREAM_KEY, the API key for clients that send none.
"""

import os
import uuid
from http.cookiejar import DefaultCookiePolicy

import requests
from flask import Flask, render_template, request
from requests.adapters import HTTPAdapter

from ssesync import Event, ReadError, Relay, relay_request
from ssesync_flask import SSE, EventStreamResponse

# The client's key, and the type of the body. No other header of the client is sent to the upstream.
FORWARD = ("Authorization", "Content-Type")
# Seconds to connect, and seconds without a byte of the model, keep-alives included.
TIMEOUT = (5, 120)


def error_event(error):
    """The event that ends an incomplete answer, in the form on which OpenAI's clients raise.

    The exception's text is only logged, as it may contain the upstream's URL.
    """
    if isinstance(error, ReadError):
        fields = {"message": "The model broke off.", "type": "upstream_error", "code": None}
    else:
        fields = {"message": "The gateway ended the answer early.", "type": "server_error", "code": None}
    return Event.from_json({"error": fields}, type="error")


sse = SSE()


def create_app():
    app = Flask(__name__)
    # An answer can't be resumed: when the server stops it waits for unfinished answers, this many seconds at most.
    app.config["SSESYNC"] = {"error_event": error_event, "drain_timeout": 10}
    sse.init_app(app)
    upstream = os.environ["UPSTREAM"].rstrip("/")
    key = os.environ.get("UPSTREAM_KEY")
    session = requests.Session()
    session.trust_env = False
    # All clients share the session: a cookie that is set for one client must not be sent for another.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.mount("http://", HTTPAdapter(pool_maxsize=32))

    def pass_on(path):
        headers = {} if "Authorization" in request.headers or not key else {"Authorization": f"Bearer {key}"}
        answer = relay_request(
            request, upstream + path, session=session, forward=FORWARD, headers=headers, timeout=TIMEOUT
        )
        return EventStreamResponse(Relay(answer))

    @app.post("/v1/chat/completions")
    def chat_completions():
        return pass_on("/v1/chat/completions")

    # The same answer as a run: made in the background, it survives a reload, and ends when the page says so. Nobody can
    # guess its name. With users, the subject is the user's id.

    def complete(question):
        """A run's producer: the upstream's answer."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{upstream}/v1/chat/completions"
        return Relay(session.post(url, json=question, headers=headers, stream=True, timeout=TIMEOUT))

    @app.post("/answers")
    def start_answer():
        run = sse.start_run(f"answer-{uuid.uuid4().hex}", complete, request.get_json(), subject="", max_seconds=600)
        return {"name": run.name}, 202

    @app.get("/answers/<name>")
    def follow_answer(name):
        return sse.follow_run(name, subject="")

    @app.post("/answers/<name>/stop")
    def stop_answer(name):
        return {"stopped": sse.stop_run(name, subject="")}

    @app.get("/counters")
    def counters():
        return pass_on("/counters")

    @app.get("/counters/live")
    def counters_live():
        return pass_on("/counters/live")

    @app.errorhandler(requests.RequestException)
    def no_upstream(error):
        app.logger.error("no answer from the upstream: %s", error)
        return {"error": {"message": "The model can't be reached.", "type": "upstream_error", "code": None}}, 502

    @app.get("/")
    def page():
        return render_template("chat.html")

    return app
