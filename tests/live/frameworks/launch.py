"""Runs the servers that are started from Python: ``python -m tests.live.frameworks.launch SERVER DESCRIPTOR``.

``DESCRIPTOR`` is that of a listening socket, so that no port has to be found and nothing waited for.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tests.live.apps.together import application


def serve_werkzeug(listener: socket.socket) -> None:
    from werkzeug.serving import make_server

    host, port = listener.getsockname()
    make_server(host, port, application, threaded=True, fd=listener.fileno()).serve_forever()


def serve_wsgiref(listener: socket.socket) -> None:
    server = WSGIServer(listener.getsockname(), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = listener.getsockname()
    server.setup_environ()
    server.set_app(application)
    server.serve_forever()


def serve_waitress(listener: socket.socket) -> None:
    import waitress

    waitress.serve(application, sockets=[listener], threads=4)


SERVERS: dict[str, Callable[[socket.socket], None]] = {
    "werkzeug": serve_werkzeug,
    "wsgiref": serve_wsgiref,
    "waitress": serve_waitress,
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    SERVERS[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))
