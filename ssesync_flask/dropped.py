"""Ends streams whose response is not sent, because an error response replaced it, with their request.

If ``after_request`` raises, the response of the view is not sent. The exception's traceback references it: until the
next garbage collection, and for good if a debugger's page keeps the traceback.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from flask import Flask, has_request_context, request, request_tearing_down

from ssesync import EventStream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["end_with_request", "mark_sent"]

_KEY = "ssesync.made"


def end_with_request(environ: WSGIEnvironment, stream: EventStream) -> None:
    """Close a stream when its request fails, unless :func:`mark_sent` was called for it before.

    :param environ: the request's WSGI environ.
    :param stream: the stream.
    """
    # With the thread: the producer's copy of the request's context is torn down too, on another one.
    made = environ.setdefault(_KEY, (threading.get_ident(), weakref.WeakSet()))
    made[1].add(stream)


def mark_sent(environ: WSGIEnvironment, stream: EventStream) -> None:
    """Record that the server has this stream.

    :param environ: the request's WSGI environ.
    :param stream: the stream.
    """
    if _KEY in environ:
        environ[_KEY][1].discard(stream)


@request_tearing_down.connect
def _end_dropped(app: Flask, exc: BaseException | None = None, **_: Any) -> None:
    # Without an error another response may have been made around this one's stream.
    if exc is None or not has_request_context():
        return
    thread, streams = request.environ.get(_KEY, (0, ()))
    if thread == threading.get_ident():
        for stream in list(streams):
            stream.close()
