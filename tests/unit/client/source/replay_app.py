"""A WSGI application whose events are numbered and are replayed from behind ``Last-Event-ID`` on.

``python -m tests.unit.client.source.replay_app PORT`` serves it with Werkzeug, and says so on a line once it listens.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from werkzeug.serving import make_server

from ssesync import Event, EventStream
from ssesync.wire.http import get_last_event_id

#: So many events there are; behind them comes "end".
COUNT = 300
# Between two events: the stream is to last for long enough to be killed in.
_SECONDS = 0.002


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return EventStream(_events(int(get_last_event_id(environ) or 0)))


def _events(last: int) -> Iterator[Event]:
    wait = threading.Event().wait
    for number in range(last + 1, COUNT + 1):
        wait(_SECONDS)
        yield Event(f"event {number}", id=str(number))
    yield Event("", type="end")


if __name__ == "__main__":
    server = make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True)
    print("ready", flush=True)
    server.serve_forever()
