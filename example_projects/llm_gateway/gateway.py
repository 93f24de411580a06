"""A gateway to a server that speaks OpenAI's chat completions, or to another gateway: it passes streams on.

Environment: UPSTREAM, that server's address, and UPSTREAM_KEY, the API key for clients that bring none.
"""

import os
from http.cookiejar import DefaultCookiePolicy

import requests
from flask import Flask, render_template, request
from requests.adapters import HTTPAdapter

from ssesync import Event, ReadError, Relay, relay_request
from ssesync_flask import EventStreamResponse

# Whose key it is, and what the body is. Nothing else of the client is the upstream's business.
FORWARD = ("Authorization", "Content-Type")
# Seconds to connect, and seconds that a model may think without a byte, keep-alives included.
TIMEOUT = (5, 120)


def error_event(error):
    """What the client of half an answer is told, in the form on which OpenAI's clients raise.

    What the exception says stays in the log: it may hold the upstream's address.
    """
    if isinstance(error, ReadError):
        told = {"message": "The model broke off.", "type": "upstream_error", "code": None}
    else:
        told = {"message": "The gateway ended the answer early.", "type": "server_error", "code": None}
    return Event.from_json({"error": told}, type="error")


def create_app():
    app = Flask(__name__)
    # An answer that is half made can't be asked for again: a stop of the server waits for it, this long at most.
    app.config["SSESYNC"] = {"error_event": error_event, "drain_timeout": 10}
    upstream = os.environ["UPSTREAM"].rstrip("/")
    key = os.environ.get("UPSTREAM_KEY")
    session = requests.Session()
    session.trust_env = False
    # All clients share the session: no cookie that one of them is given may go along with another.
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
