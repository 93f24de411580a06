"""A gateway to a server with OpenAI's or Anthropic's API, or to another gateway: it passes streams on.

Environment: UPSTREAM, that server's URL, and UPSTREAM_KEY, the API key for clients that send none.
"""

import os
import uuid

import requests
from flask import Flask, render_template, request

from ssesync import Event, ReadError, Relay
from ssesync_flask import SSE, EventStreamResponse

# The client's key, the version of the API and the type of the body. No other header of the client is sent to the
# upstream.
FORWARD = ("Authorization", "X-Api-Key", "Anthropic-Version", "Anthropic-Beta", "Content-Type")
# What the client gets of the answer's headers: the ids of requests are for questions to the operator of the model.
PASS = ("X-Request-Id", "Request-Id", "Retry-After")
# Bytes of an answer that was not requested as a stream.
MAX_BODY = 16 * 1024 * 1024
# Bytes of a request: images are large.
MAX_REQUEST = 32 * 1024 * 1024
# Seconds to connect, and seconds without a byte of the model, keep-alives included.
TIMEOUT = (5, 120)


def error_event(error):
    """The event that ends an incomplete answer, in the form on which the clients of OpenAI and of Anthropic raise.

    The exception's text is only logged, as it may contain the upstream's URL.
    """
    if isinstance(error, ReadError):
        fields = {"message": "The model broke off.", "type": "upstream_error", "code": None}
    else:
        fields = {"message": "The gateway ended the answer early.", "type": "server_error", "code": None}
    return Event.from_json({"type": "error", "error": fields}, type="error")


sse = SSE()


def create_app():
    app = Flask(__name__)
    # An answer can't be resumed: when the server stops it waits for unfinished answers, this many seconds at most.
    app.config["SSESYNC"] = {"error_event": error_event, "drain_timeout": 10}
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST
    sse.init_app(app)
    upstream = os.environ["UPSTREAM"].rstrip("/")
    key = os.environ.get("UPSTREAM_KEY")

    @app.before_request
    def require_json():
        """Pages of other sites can send forms and plain text, which must not use the gateway's key."""
        if request.path.startswith("/v1/") and not request.is_json:
            error = {"message": "Content-Type must be application/json.", "type": "invalid_request_error", "code": None}
            return {"type": "error", "error": error}, 415
        return None

    def pass_on(path):
        """Answer with the upstream's answer. Neither the wait for it nor the stream takes a thread."""
        has_key = "Authorization" in request.headers or "X-Api-Key" in request.headers
        relay = Relay.from_request(
            request,
            upstream + path,
            forward=FORWARD,
            headers={} if has_key or not key else {"Authorization": f"Bearer {key}"},
            pass_headers=PASS,
            max_body=MAX_BODY,
            timeout=TIMEOUT,
        )
        return EventStreamResponse(relay)

    @app.post("/v1/chat/completions")
    def chat_completions():
        return pass_on("/v1/chat/completions")

    @app.post("/v1/messages")
    def messages():
        return pass_on("/v1/messages")

    # The same answer as a run: made in the background, it survives a reload, and ends when the page says so. Nobody can
    # guess its name. With users, the subject is the user's id.

    def complete(question):
        """A run's producer: the upstream's answer."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{upstream}/v1/chat/completions"
        return Relay(requests.post(url, json=question, headers=headers, stream=True, timeout=TIMEOUT))

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
        """Where streams are not detached (gevent), the view makes the request and raises its errors."""
        app.logger.error("no answer from the upstream: %s", error)
        return {"error": {"message": "The model can't be reached.", "type": "upstream_error", "code": None}}, 502

    @app.get("/")
    def page():
        return render_template("chat.html")

    return app
