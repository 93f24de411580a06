"""The servers of streams that stay served, and what a stream is asked for by."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tests import servers
from tests.servers import GTHREAD, SETTINGS, SYNC, Command, Kind, runserver, uwsgi

APP = "streams"
#: What every stream begins with.
OPENING = b":ok\n"
FIRST = b"data: first\n\n"


def gunicorn(*options: str, app: str = APP, config: str = SETTINGS) -> Command:
    return servers.gunicorn(*options, app=app, config=config)


def launch(name: str) -> Command:
    return servers.launch(name, APP)


#: Every server, as it can serve a stream.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("sync", gunicorn(*SYNC), concurrent=False),
        Kind("gthread", gunicorn(*GTHREAD)),
        Kind("gthread_unix", gunicorn(*GTHREAD), transport="unix"),
        Kind("gthread_tls", gunicorn(*GTHREAD), transport="tls"),
        Kind("gevent", gunicorn("--worker-class", "gevent")),
        Kind("gevent_pywsgi", gunicorn("--worker-class", "gevent_pywsgi")),
        Kind("werkzeug", launch("werkzeug")),
        Kind("runserver", runserver(), inherits=False),
        Kind("wsgiref", launch("wsgiref"), concurrent=False),
        Kind("waitress", launch("waitress")),
        Kind("uwsgi", uwsgi(APP), inherits=False),
        Kind("cheroot", launch("cheroot")),
        Kind("pywsgi", launch("pywsgi")),
    )
}


def path(
    place: str = "/stream", *, line: int | None = None, options: dict[str, Any] | None = None, **query: Any
) -> str:
    """The path of a stream with options."""
    if line is not None:
        query["line"] = line
    if options is not None:
        query["options"] = quote(json.dumps(options))
    return f"{place}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
