"""Runs the servers that are started from Python: ``python -m tests.live.detached.launch SERVER DESCRIPTOR``.

Each serves a listening socket that it inherits, over TCP or a unix one.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

from tests.live.streams import launch

from .app import application


def serve_werkzeug(listener: socket.socket, application: Any, threaded: bool = True) -> None:
    from werkzeug.serving import make_server

    name = listener.getsockname()
    host, port = (f"unix://{name}", 0) if listener.family == socket.AF_UNIX else name
    make_server(host, port, application, threaded=threaded, fd=listener.fileno()).serve_forever()


def serve_werkzeug_alone(listener: socket.socket, application: Any) -> None:
    serve_werkzeug(listener, application, threaded=False)


SERVERS: dict[str, Callable[[socket.socket, Any], None]] = {
    **launch.SERVERS,
    "werkzeug": serve_werkzeug,
    "werkzeug_alone": serve_werkzeug_alone,
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])), application)
