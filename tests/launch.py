"""Runs the servers that are started from Python: ``python -m tests.launch SERVER DESCRIPTOR MODULE:APPLICATION``.

The descriptor is that of a listening socket, over TCP or a unix one, so no port has to be found.

Without a handler for SIGTERM: what one of ours does in front of none is for the tests to see.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Callable
from typing import Any

if sys.argv[1:2] == ["pywsgi"]:
    from gevent import monkey

    monkey.patch_all()


def serve_werkzeug(listener: socket.socket, application: Any, threaded: bool = True) -> None:
    from werkzeug.serving import make_server

    name = listener.getsockname()
    host, port = (f"unix://{name}", 0) if listener.family == socket.AF_UNIX else name
    make_server(host, port, application, threaded=threaded, fd=listener.fileno()).serve_forever()


def serve_werkzeug_alone(listener: socket.socket, application: Any) -> None:
    serve_werkzeug(listener, application, threaded=False)


def serve_wsgiref(listener: socket.socket, application: Any) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    server = WSGIServer(listener.getsockname(), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = listener.getsockname()
    server.setup_environ()
    server.set_app(application)
    server.serve_forever()


def serve_waitress(listener: socket.socket, application: Any) -> None:
    import waitress

    waitress.serve(application, sockets=[listener], threads=4)


def serve_cheroot(listener: socket.socket, application: Any) -> None:
    from cheroot.wsgi import Server

    server = Server(listener.getsockname(), application, numthreads=4)
    # It would make its own socket; this is how it is given one.
    server.bind = lambda *_: setattr(server, "socket", listener)
    server.start()


def serve_pywsgi(listener: socket.socket, application: Any) -> None:
    from gevent.pywsgi import WSGIServer

    WSGIServer(listener, application, log=None).serve_forever()


SERVERS: dict[str, Callable[[socket.socket, Any], None]] = {
    "werkzeug": serve_werkzeug,
    "werkzeug_alone": serve_werkzeug_alone,
    "wsgiref": serve_wsgiref,
    "waitress": serve_waitress,
    "cheroot": serve_cheroot,
    "pywsgi": serve_pywsgi,
}

if __name__ == "__main__":
    _, server, descriptor, place = sys.argv
    module, _, name = place.partition(":")
    SERVERS[server](socket.socket(fileno=int(descriptor)), getattr(importlib.import_module(module), name))
