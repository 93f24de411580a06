"""A producer that reads the body of its request."""

from __future__ import annotations

import functools

from flask import Blueprint, Response, request

from ssesync_flask import EventStreamResponse
from tests.apps.reading import Read, options_of, produce

blueprint = Blueprint("bodies", __name__)


@blueprint.post("/body")
def body() -> Response:
    query = request.args.to_dict()
    before = request.stream.read(int(query["before"])) if "before" in query else b""
    ways: dict[str, Read] = {
        "stream": lambda: before + request.stream.read(),
        "data": lambda: request.get_data(),
        "form": lambda: request.form["field"].encode(),
        "file": lambda: request.files["file"].read(),
    }
    read = ways[query["how"]]
    if "early" in query:
        read = functools.partial(bytes, read())
    return EventStreamResponse(produce(query["name"], read), **options_of(query))
