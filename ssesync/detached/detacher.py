"""The ``Detacher`` of ``server``: takes streams away from the WSGI server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..greenlets import threads_are_greenlets
from ..server.detaching import Handover, Record, Takeover
from ..server.ending import Ending
from ..server.source import Source, Tappable
from ..server.wsgi_sockets import find_socket
from ..settings import Settings
from .capture import SocketCapture, can_capture
from .feed import Feed, feed
from .handover import SocketTakeover
from .last_answer import LastAnswer
from .requesting import relay

__all__ = ["SocketDetacher", "takeover_of"]

_ALWAYS = ("gunicorn", "werkzeug", "runserver")
_ON_REQUEST = ("uwsgi", "cheroot", "wsgiref")
# Bytes of an opening that fit into a socket pair together with any head, on every system.
_MAX_OPENING = 4096


class SocketDetacher:
    """See :class:`ssesync.server.detaching.Detacher`."""

    def takeover_of(self, environ: Mapping[str, Any], settings: Settings, opening: bytes) -> Takeover | None:
        """See :func:`ssesync.server.detaching.takeover_of`."""
        return takeover_of(environ, settings, opening)

    def last_answer_of(self, environ: Mapping[str, Any], settings: Settings, body: bytes) -> Takeover | None:
        """See :func:`ssesync.server.detaching.last_answer_of`."""
        return takeover_of(environ, settings, body, LastAnswer)

    def feed(self, source: Source, handover: Handover, record: Record, ending: Ending) -> Feed:
        """See :func:`ssesync.server.detaching.feed`."""
        if isinstance(source, Tappable):
            return relay(source, handover, record, ending)
        return feed(source, handover, record, ending)


def takeover_of(
    environ: Mapping[str, Any], settings: Settings, opening: bytes, kind: type[SocketTakeover] | None = None
) -> Takeover | None:
    """Make an object that can take the connection of a request from its server.

    :param environ: the WSGI environ of the request.
    :param settings: the stream's.
    :param opening: the first bytes of the stream, or of the answer.
    :param kind: the object's class; without it, the one for the server.
    :return: the object; ``None`` if that is not possible or not wanted.
    """
    if not settings.detach or len(opening) > _MAX_OPENING or threads_are_greenlets():
        return None
    found = find_socket(environ)
    if found is None or found.server not in (_ALWAYS + _ON_REQUEST if settings.detach is True else _ALWAYS):
        return None
    if not _is_suitable(found.server, environ):
        return None
    connection: Any = environ.get("gunicorn.socket")
    if kind is None and can_capture(found.server, connection):
        return SocketCapture(connection, opening, settings.send_timeout)
    return (kind or SocketTakeover)(found, opening, settings.send_timeout)


def _is_suitable(server: str, environ: Mapping[str, Any]) -> bool:
    software = str(environ.get("SERVER_SOFTWARE", ""))
    if server == "gunicorn":
        return not _is_tls(environ["gunicorn.socket"])
    if server == "werkzeug":
        # Its forking server ends with the request. Other servers that set this key are not known.
        return (
            software.startswith("Werkzeug/")
            and not environ.get("wsgi.multiprocess")
            and not _is_tls(environ["werkzeug.socket"])
        )
    if server == "cheroot":
        # cheroot reads the rest of a request's body before it sends the head, and would read it from the dummy.
        body = environ["wsgi.input"]
        unread = getattr(body, "remaining", 1) if environ.get("CONTENT_LENGTH") else "HTTP_TRANSFER_ENCODING" in environ
        return not unread and "gevent" not in type(body).__module__
    return server == "uwsgi" or software.startswith("WSGIServer/")


def _is_tls(connection: Any) -> bool:
    return hasattr(connection, "cipher")
