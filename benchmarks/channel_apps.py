"""The applications that benchmarks.channels serves, and what publishes to them, each as its documentation has it.

All serve ``/events``, the stream of one channel, and ``/publish?first=0&count=10&pause=0.05``, which publishes within
the server's process. ``python -m benchmarks.channel_apps NAME`` is a publisher apart: it reads lines of the same three
numbers, answers each with a line when it has published, and ends with its standard input.

ssesync
    The Flask skin, with the broker that ``BENCH_BROKER`` names and nothing else set, but ``detach=False`` where
    ``BENCH_SERVED`` is.
flask-sse
    Its blueprint, for a Redis at ``BENCH_REDIS``.
django-eventstream
    Its URLs with a fixed channel, and ``send_event``. ``EVENTSTREAM_REDIS`` where ``BENCH_REDIS`` is set, and
    its ``RedisStorage`` where ``BENCH_STORED`` is: without a storage it drops events of a subscriber for whom ten wait.
    (``DjangoModelStorage`` on SQLite was tried too: with a thousand subscribers the publisher soon finds the database
    locked.) Texts are not encoded as JSON, as the others don't either.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Publish = Callable[[str], object]

CHANNEL = "benchmark"
#: How long the data of an event is.
SIZE = 100


def publish_many(publish: Publish, first: int, count: int, pause: float) -> float:
    """Publish events that tell their number and the time; the seconds that it took."""
    start = due = time.monotonic()
    for number in range(first, first + count):
        publish(f"{number} {time.monotonic_ns()} ".ljust(SIZE, "x"))
        if pause:
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))
    return time.monotonic() - start


def _ask(publish: Publish, arguments: Any) -> str:
    seconds = publish_many(publish, int(arguments["first"]), int(arguments["count"]), float(arguments["pause"]))
    return f"{seconds}\n"


def ours() -> Any:
    """The application under ssesync_flask."""
    from flask import Flask, request

    from ssesync_flask import SSE

    app = Flask(__name__)
    options = {"detach": False} if os.environ.get("BENCH_SERVED") else {}
    sse = SSE(app, broker=os.environ["BENCH_BROKER"], **options)
    app.add_url_rule("/events", "events", lambda: sse.subscribe(CHANNEL))
    app.add_url_rule("/publish", "publish", lambda: _ask(lambda text: sse.publish(CHANNEL, text), request.args))
    return app


def flask_sse() -> Any:
    """The application under flask-sse."""
    from flask import Flask, request
    from flask_sse import sse

    app = Flask(__name__)
    app.config["REDIS_URL"] = os.environ["BENCH_REDIS"]
    app.register_blueprint(sse, url_prefix="/events")
    app.add_url_rule("/publish", "publish", lambda: _ask(sse.publish, request.args))
    return app


def django_eventstream() -> Any:
    """The application under django-eventstream."""
    _configure()
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def _configure() -> None:
    import django
    from django.conf import settings

    options: dict[str, Any] = {}
    if url := os.environ.get("BENCH_REDIS"):
        parts = urlsplit(url)
        where = {"host": parts.hostname, "port": parts.port, "db": 0}
        options["EVENTSTREAM_REDIS"] = where
        if os.environ.get("BENCH_STORED"):
            options["EVENTSTREAM_STORAGE_CLASS"] = "django_eventstream.storage.RedisStorage"
            options["EVENTSTREAM_STORAGE_CONNECTION"] = where
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY="benchmark",
        ALLOWED_HOSTS=["127.0.0.1"],
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_eventstream"],
        **options,
    )
    django.setup()


def __getattr__(name: str) -> Any:
    if name != "urlpatterns":
        raise AttributeError(name)
    import django_eventstream as peer
    from django.http import HttpResponse
    from django.urls import include, path

    return [
        path("events", include(peer.urls), {"channels": [CHANNEL]}),
        path("publish", lambda request: HttpResponse(_ask(_send_event, request.GET))),
    ]


def _send_event(text: str) -> None:
    from django_eventstream import send_event

    send_event(CHANNEL, "message", text, json_encode=False)


def _publisher(name: str) -> Publish:
    if name == "django_eventstream":
        _configure()
        return _send_event
    if name == "flask_sse":
        from flask_sse import sse

        # For as long as the process runs: its own documentation has it around a whole script.
        flask_sse().app_context().push()
        return sse.publish  # type: ignore[no-any-return]
    from ssesync import open_broker

    broker = open_broker(os.environ["BENCH_BROKER"])
    return lambda text: broker.publish(CHANNEL, text)


def main() -> None:
    """Publish the events that standard input requests."""
    publish = _publisher(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        first, count, pause = line.split()
        print(publish_many(publish, int(first), int(count), float(pause)), flush=True)


if __name__ == "__main__":
    main()
