"""A producer that reads the body of its request."""

from __future__ import annotations

import functools

from django.http import HttpRequest, HttpResponseBase

from ssesync_django import EventStreamResponse
from tests.apps.reading import Read, options_of, produce


def body(request: HttpRequest) -> HttpResponseBase:
    query = request.GET.dict()
    before = request.read(int(query["before"])) if "before" in query else b""

    def read_file() -> bytes:
        data = request.FILES["file"].read()
        assert isinstance(data, bytes)
        return data

    ways: dict[str, Read] = {
        "read": lambda: before + request.read(),
        "body": lambda: request.body,
        "form": lambda: str(request.POST["field"]).encode(),
        "file": read_file,
    }
    read = ways[query["how"]]
    if "parsed" in query:
        assert request.FILES or request.POST
    if "early" in query:
        read = functools.partial(bytes, read())
    return EventStreamResponse(produce(query["name"], read), request=request, **options_of(query))
