"""A real server in a thread, and the streams that the scripts of the documentation read."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

from werkzeug.serving import make_server

from ssesync import Event, EventStream, get_last_event_id


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(90)
        server.server_close()


def progress() -> Iterator[Event]:
    yield Event("10", type="progress", id="1")
    yield Event("100", type="progress", id="2")
    yield Event.from_json({"rows": 3}, type="done", id="3")


def chat(writer: Any) -> None:
    """Chat completions: JSON pieces, then ``[DONE]``. The response stays open."""
    for word in ("Hello", ", ", "world"):
        writer.write_event({"delta": word})
    writer.write_event("[DONE]")
    writer.cancelled.wait(90)


def silent(writer: Any) -> None:
    writer.write_event("one")
    writer.cancelled.wait(90)


STREAMS = {
    "/events": EventStream(progress),
    "/clock": EventStream(lambda: [Event("noon", type="tick")]),
    "/chat": EventStream.from_writer(chat, keep_alive=0.5),
    "/silent": EventStream.from_writer(silent, keep_alive=None),
}


WORDS = ["to", "be", "or", "not", "to", "be"]


def news(environ: Any, start_response: Any) -> Any:
    """Resumes after the last event ID, sends three events and ends; after the last one it answers 204."""
    begin = int(get_last_event_id(environ) or 0)
    words = list(enumerate(WORDS, start=1))[begin : begin + 3]
    if not words:
        start_response("204 No Content", [])
        return []
    return EventStream([Event(word, id=number) for number, word in words])(environ, start_response)


class Guarded:
    """The same, for requests with a token; ``/token`` issues tokens, each valid for one request."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._valid: set[str] = set()

    def token(self, environ: Any, start_response: Any) -> Any:
        token = f"token-{next(self._numbers)}"
        self._valid.add(token)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [token.encode()]

    def news(self, environ: Any, start_response: Any) -> Any:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        if token in self._valid:
            self._valid.remove(token)
            return news(environ, start_response)
        start_response("401 Unauthorized", [("Content-Type", "text/plain")])
        return [b"a fresh token, please"]


GUARDED = Guarded()
ANSWERS = {"/news": news, "/token": GUARDED.token, "/private": GUARDED.news}


def application(environ: Any, start_response: Any) -> Any:
    stream = ANSWERS.get(environ["PATH_INFO"]) or STREAMS.get(environ["PATH_INFO"])
    if stream is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such stream"]
    return stream(environ, start_response)
