"""What the processes of a chain serve: ``CHAIN_ROLE`` is ``origin``, or the skin of a gateway to ``CHAIN_UPSTREAM``."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ssesync import Event, EventStream, Relay, Writer, relay_request, streams

OPTIONS: dict[str, Any] = {"keep_alive": float(os.environ.get("CHAIN_KEEP_ALIVE", "60"))}

_session = requests.Session()
_session.trust_env = False
# A connection that a relay did not give back would be missed soon.
_session.mount("http://", HTTPAdapter(pool_maxsize=2, pool_block=True))

_lock = threading.Lock()
_produced = 0
_closed: list[tuple[str, float]] = []


def upstream(request: Any, path: str) -> Relay:
    if "CHAIN_ASKS_LATER" in os.environ:
        return Relay.from_request(request, os.environ["CHAIN_UPSTREAM"] + path, timeout=(10, None))
    return Relay(relay_request(request, os.environ["CHAIN_UPSTREAM"] + path, session=_session, timeout=(10, None)))


def own() -> dict[str, Any]:
    """What this process holds."""
    return {"descriptors": len(list(Path("/proc/self/fd").iterdir())), "threads": threading.active_count(),
            "produced": _produced, "closed": list(_closed), "streams": streams.snapshot()}  # fmt: skip


def silent(writer: Writer) -> None:
    """Produces all the time and sends once."""
    global _produced
    writer.write_event("begun")
    while not writer.cancelled.wait(0.01):
        with _lock:
            _produced += 1


def many() -> Iterator[Event]:
    for number in range(5_000):
        yield Event(f"token {number}\nü", id=number, type="token" if number % 3 else None, comment="c" * (number % 5))


def note_end(reason: str, stats: object) -> None:
    _closed.append((str(reason), time.monotonic()))


def answer_json(start_response: Any, value: object, status: str = "200 OK") -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]


def origin(environ: Any, start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/silent":
        return EventStream.from_writer(silent, on_close=note_end, **OPTIONS)(environ, start_response)
    if path == "/many":
        return EventStream(many, **OPTIONS)(environ, start_response)
    return answer_json(start_response, {"error": "no key"}, "401 Unauthorized")


def bare(environ: Any, start_response: Any) -> Iterable[bytes]:
    return EventStream(upstream(environ, environ["PATH_INFO"]), **OPTIONS)(environ, start_response)


def make_flask() -> Any:
    from flask import Flask, request

    from ssesync_flask import EventStreamResponse

    app = Flask(__name__)

    @app.get("/<path>")
    def relay(path: str) -> Any:
        return EventStreamResponse(upstream(request, f"/{path}"), **OPTIONS)

    return app


def relay_in_django(request: Any, path: str) -> Any:
    from ssesync_django import EventStreamResponse

    return EventStreamResponse(upstream(request, f"/{path}"), **OPTIONS)


def make_django() -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.urls import path

    settings.configure(
        SECRET_KEY="for tests only",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["ssesync_django"],
        MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", "django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=__name__,
    )
    globals()["urlpatterns"] = [path("<path>", relay_in_django)]
    return get_wsgi_application()


ROLES: dict[str, Callable[[], Any]] = {
    "origin": lambda: origin, "bare": lambda: bare, "flask": make_flask, "django": make_django
}  # fmt: skip


def make() -> Any:
    role = ROLES[os.environ["CHAIN_ROLE"]]()

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] in ("/plain", "/own"):
            return answer_json(start_response, own())
        return role(environ, start_response)  # type: ignore[no-any-return]

    return application
