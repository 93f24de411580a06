"""Channels whose clients a keeper may hold. ``TESTS_BROKER`` in the environment names the broker.

``/events`` subscribes as the query says; with ``on_close`` in it the stream has to stay in its worker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from flask import Blueprint, Response, request

from ssesync_flask import SSE
from tests.apps.flask_app import create_app
from tests.apps.process import log_to_stderr
from tests.apps.worker import Worker

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

blueprint = Blueprint("kept", __name__)
sse = SSE(broker=os.environ["TESTS_BROKER"])


@blueprint.get("/events")
def events() -> Response:
    options = json.loads(request.args.get("options", "{}"))
    if "on_close" in request.args:
        options["on_close"] = lambda reason, stats: None
    if "coalesce" in request.args:
        options |= {"overflow": "coalesce", "coalesce": lambda event: 0}
    return sse.subscribe(
        *request.args.getlist("channel"),
        patterns=request.args.getlist("pattern"),
        key=request.args.get("key") or None,
        headers={"X-Worker": str(os.getpid())},
        **options,
    )


log_to_stderr()
flask_app = create_app(blueprint)
sse.init_app(flask_app)
worker = Worker(flask_app, lambda: sse.broker)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/count":
        channel = parse_qs(environ["QUERY_STRING"])["channel"][0]
        body = str(sse.broker.subscriber_count(channel)).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    return worker(environ, start_response)
