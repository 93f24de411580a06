"""The ``Detacher`` of ``server``: takes streams away from the WSGI server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..server.detaching import Handover, Record
from ..server.ending import Ending
from ..server.source import Source, Tappable
from ..settings import Settings
from .feed import Feed, feed
from .handover import SocketTakeover, takeover_of
from .last_answer import LastAnswer
from .relaying import relay

__all__ = ["SocketDetacher"]


class SocketDetacher:
    """See :class:`ssesync.server.detaching.Detacher`."""

    def takeover_of(self, environ: Mapping[str, Any], settings: Settings, opening: bytes) -> SocketTakeover | None:
        """See :func:`ssesync.server.detaching.takeover_of`."""
        return takeover_of(environ, settings, opening)

    def last_answer_of(self, environ: Mapping[str, Any], settings: Settings, body: bytes) -> SocketTakeover | None:
        """See :func:`ssesync.server.detaching.last_answer_of`."""
        return takeover_of(environ, settings, body, LastAnswer)

    def feed(self, source: Source, handover: Handover, record: Record, ending: Ending) -> Feed:
        """See :func:`ssesync.server.detaching.feed`."""
        if isinstance(source, Tappable):
            return relay(source, handover, record, ending)
        return feed(source, handover, record, ending)
