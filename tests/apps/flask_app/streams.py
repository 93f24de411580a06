"""Producers that the query chooses."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import flask
from flask import Blueprint

from ssesync import EventStream
from ssesync_flask import EventStreamResponse
from tests.apps.wsgi.streams import led

blueprint = Blueprint("streams", __name__)


@blueprint.get("/stream")
def stream() -> flask.Response:
    query = flask.request.args.to_dict()
    options = json.loads(query.get("options", "{}"))
    if query.get("do") == "led":
        return EventStreamResponse(EventStream.from_writer(lambda w: led(w, query, lambda **message: None), **options))
    return EventStreamResponse(_chaos_in_flask, **options)


def _chaos_in_flask() -> Iterable[Any]:
    dice = random.Random(int(flask.request.args["seed"]))
    for number in range(dice.randrange(30)):
        flask.g.number = number
        yield {"path": flask.request.path, "text": "z" * dice.randrange(20_000)}
        if dice.random() < 0.05:
            raise RuntimeError("chaos in Flask")
