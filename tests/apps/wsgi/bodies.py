"""A producer that reads the body of its request, in plain WSGI."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ssesync import EventStream
from tests.apps import facts
from tests.apps.reading import options_of, produce

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def read_all(stream: Any, environ: WSGIEnvironment) -> bytes:
    """Read a body by pieces, as a server's own input may have no end."""
    length = environ.get("CONTENT_LENGTH")
    left = int(length) if length else sys.maxsize
    pieces = []
    while left and (piece := stream.read(min(left, 50_000))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def body(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = facts.query(environ)
    stream = environ["wsgi.input"]
    before = stream.read(int(query["before"])) if "before" in query else b""
    if query.get("how") == "all":
        data = read_all(stream, environ)
        source = produce(query["name"], lambda: data)
    elif before:
        rest = {**environ, "CONTENT_LENGTH": str(int(environ["CONTENT_LENGTH"]) - len(before))}
        source = produce(query["name"], lambda: before + read_all(stream, rest))
    else:
        source = produce(query["name"], lambda: read_all(stream, environ))
    return EventStream(source, **options_of(query))(environ, start_response)
