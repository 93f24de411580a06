"""A real server in a thread, and the streams that the scripts of the documentation read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from werkzeug.serving import make_server

from ssesync import Event, EventStream


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
        thread.join(10)
        server.server_close()


def progress() -> Iterator[Event]:
    yield Event("10", type="progress", id="1")
    yield Event("100", type="progress", id="2")
    yield Event.from_json({"rows": 3}, type="done", id="3")


def chat(writer: Any) -> None:
    """Chat completions in the usual manner: JSON pieces, then a word that says it was all. It stays open."""
    for word in ("Hello", ", ", "world"):
        writer.write_event({"delta": word})
    writer.write_event("[DONE]")
    writer.cancelled.wait(30)


def silent(writer: Any) -> None:
    writer.write_event("one")
    writer.cancelled.wait(30)


STREAMS = {
    "/events": EventStream(progress),
    "/clock": EventStream(lambda: [Event("noon", type="tick")]),
    "/chat": EventStream.from_writer(chat, keep_alive=0.1),
    "/silent": EventStream.from_writer(silent, keep_alive=None),
}


def application(environ: Any, start_response: Any) -> Any:
    stream = STREAMS.get(environ["PATH_INFO"])
    if stream is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such stream"]
    return stream(environ, start_response)
