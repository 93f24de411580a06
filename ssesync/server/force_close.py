"""Ending a server's keep-alive: the server must not process a request that follows a detached one (RFC 9112, 9.6).

A detached answer has ``Connection: close``, whatever its server wrote. The server may have read further requests into
its buffer by then, does not notice the connection's end, and would process them: they would have their effects, and
their responses would be lost. Of the servers whose streams are detached only gunicorn's ``gthread`` worker does so.
Werkzeug, runserver, wsgiref and uWSGI close after every answer of unknown length; cheroot writes its last chunk when
the answer was closed, and gives up the connection as that fails (each seen, with and without a request's body).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["gunicorn_force_close", "gunicorn_response"]

# Frames between gunicorn's loop over the answer and the stream: one or two for each middleware.
_DEEPEST = 200


def gunicorn_force_close() -> Callable[[], object] | None:
    """Find the method by which gunicorn closes its connection after the response that this thread sends.

    :return: the method; ``None`` if it is not found: then the connection can't be taken over.
    """
    response = gunicorn_response()
    return None if response is None else response.force_close


def gunicorn_response() -> Any:
    """Find gunicorn's ``Response`` object, which has the request, on the thread that makes or sends the response.

    The environ does not refer to it in all releases (22 to 27 were read), nor behind a middleware that replaces
    ``wsgi.input``. But the call that iterates over the response does.

    :return: the object; ``None`` if it is not found.
    """
    module = sys.modules.get("gunicorn.http.wsgi")
    if module is None:
        return None
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        if frame.f_code.co_name == "handle_request":
            response: Any = frame.f_locals.get("resp")
            # Exactly this class: the method of a subclass was never tried.
            if type(response) is module.Response:
                return response
        frame = frame.f_back
    return None
