"""Whether the client of a stream can resume it, and its answer may so end as a complete one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ..errors import CloseReason
from ..settings import Settings
from .refusal import is_event_source

__all__ = ["ALWAYS", "Resumption", "resumption_of"]


class Resumption(NamedTuple):
    """What decides that, of one request. Plain values: it is kept for as long as the stream lasts."""

    setting: bool | Literal["auto"] = "auto"
    """``Settings.resumable``."""
    is_get: bool = True
    """Only a GET can be repeated without being done twice (RFC 9110, section 9.2.2)."""
    is_event_source: bool = False
    """It is a browser's ``EventSource``, which reconnects by itself."""

    def is_orderly(self, has_ids: bool, reason: CloseReason | None = None) -> bool:
        """Whether the answer may end as if it were whole, since its client comes back for the rest.

        :param has_ids: whether the client was sent an event ID to come back with.
        :param reason: why the stream ends; ``None``: for another reason than a failure.
        """
        if self.setting != "auto":
            return self.setting
        failed = reason is CloseReason.ERROR
        return (self.is_get and has_ids) or (self.is_event_source and not failed)


#: Of a stream that each client can resume.
ALWAYS = Resumption(True)


def resumption_of(settings: Settings, environ: Mapping[str, Any]) -> Resumption:
    """What decides for a request.

    :param settings: the stream's.
    :param environ: the WSGI environ of the request, ``{}`` without one.
    """
    is_get = environ.get("REQUEST_METHOD", "GET") == "GET"
    return Resumption(settings.resumable, is_get, is_event_source(environ))
