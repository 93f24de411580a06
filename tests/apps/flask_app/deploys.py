"""Subscriptions that can be moved to another process: without ``on_close``, and with plain settings.

Environment: ``BENCH_BROKER``, the broker's URL; ``OPTIONS``, options of the streams as JSON.
"""

from __future__ import annotations

import json
import os

from flask import Blueprint, Response, request

from ssesync_flask import SSE
from tests.apps.process import log_to_stderr

from . import create_app

blueprint = Blueprint("deploys", __name__)
sse = SSE(broker=os.environ["BENCH_BROKER"])
#: Clients come back as soon as they may.
options = {"retry": 500, **json.loads(os.environ.get("OPTIONS", "{}"))}


@blueprint.after_request
def name_the_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response


@blueprint.get("/events")
def events() -> Response:
    return sse.subscribe(request.args["channel"], key=request.args.get("key"), **options)


@blueprint.get("/plain")
def plain() -> str:
    return "plain"


log_to_stderr()
application = create_app(blueprint)
sse.init_app(application)
