"""The HTTP around an event stream: headers both ways (HTML standard, "Server-sent events"; PEP 3333)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast
from urllib.parse import parse_qs

from ..errors import EventError, excerpt
from ..text import escape

__all__ = [
    "HOP_BY_HOP",
    "MEDIA_TYPE",
    "add_accept_mime",
    "get_last_event_id",
    "is_event_stream",
    "missing_from",
    "response_headers",
    "set_last_event_id",
]

logger = logging.getLogger("ssesync")

MEDIA_TYPE = "text/event-stream"

#: no-transform keeps compressing and rewriting proxies away (RFC 9111, section 5.2.2.6);
#: X-Accel-Buffering: no keeps nginx from buffering the response.
_DEFAULTS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
#: Headers of one connection (RFC 9110, section 7.6.1), which the server sets: PEP 3333 forbids them to applications,
#: and wsgiref answers 500.
HOP_BY_HOP = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers",
    "transfer-encoding", "upgrade",
))  # fmt: skip
#: Servers accept header lines of 8 kB; real IDs are much shorter than half of that.
_MAX_ID_LENGTH = 4096


def response_headers(
    extra: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
) -> list[tuple[str, str]]:
    """The headers of a response that is an event stream.

    :param extra: more headers. One of these replaces the default of the same name. Hop-by-hop headers and
        ``Content-Length`` are left out, with a debug log line.
    :return: the headers, as WSGI expects them.
    """
    if not extra:
        return list(_DEFAULTS.items())
    pairs: list[tuple[str, str]] = list(cast(Any, extra).items() if isinstance(extra, Mapping) else extra or ())
    given = {name.lower() for name, _ in pairs}
    headers = [(name, value) for name, value in _DEFAULTS.items() if name.lower() not in given]
    for name, value in pairs:
        if name.lower() in HOP_BY_HOP or name.lower() == "content-length":
            logger.debug("left out the header %s: an application can't set it on an event stream", escape(name))
        else:
            headers.append((name, value))
    return headers


def missing_from(headers: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Find the headers that a response does not have.

    :param headers: those of the response.
    :param others: other headers.
    :return: those of the other headers whose names the response does not have.
    """
    present = {name.lower() for name, _ in headers}
    return [(name, value) for name, value in others if name.lower() not in present]


def is_event_stream(content_type: str | None) -> bool:
    """Whether a ``Content-Type`` value is an event stream's. Case and parameters do not matter.

    Of several values, in several header lines (joined by commas) or in one, the last one that is a media type counts
    (Fetch standard, "extract a MIME type").

    :param content_type: the value; ``None`` if there is no such header.
    :return: whether it is.
    """
    for value in reversed(_values(content_type or "")):
        found = _MEDIA_TYPE.fullmatch(value)
        if found is not None and found[1] != "*/*":
            return found[1].lower() == MEDIA_TYPE
    return False


# A type and a subtype, both tokens, and any parameters (MIME Sniffing standard, "parse a MIME type").
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"[ \t\r\n]*({_TOKEN}/{_TOKEN})[ \t\r\n]*(?:;.*)?", re.DOTALL)
# Text up to a comma that is not within quotes; a quote that is not closed reaches to the end.
_VALUE = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^",])*', re.DOTALL)


def _values(header: str) -> list[str]:
    """The values of a header that commas separate (Fetch standard, "get, decode, and split")."""
    values, at = [], 0
    while at <= len(header):
        value = _VALUE.match(header, at)
        assert value is not None  # it matches nothing, too
        values.append(value[0])
        at = value.end() + 1
    return values


def get_last_event_id(request: Any) -> str:
    """The last event ID that a client sends when it reconnects.

    The header is read as UTF-8. Polyfills that can't set it send ``?lastEventId=``, which is read if the header is
    missing. The value is not trusted: one with a control character or of more than 4,096 characters counts as none.

    :param request: a WSGI environ, a Flask or Django request, or a ``requests`` one. A header of ``None`` is none.
    :return: the ID, ``""`` if there is none.
    """
    headers, name = _headers(request, "Last-Event-ID")
    value = _utf8(headers.get(name) or "")
    if not value and name == "HTTP_LAST_EVENT_ID":
        value = parse_qs(headers.get("QUERY_STRING") or "").get("lastEventId", [""])[0]
    if len(value) > _MAX_ID_LENGTH or any(ord(c) < 32 or c == "\x7f" for c in value):
        return ""
    return value


def set_last_event_id(request: Any, last_event_id: str | None) -> None:
    """Set ``Last-Event-ID`` in a request before it is sent.

    Header values are sent as Latin-1, the ID as UTF-8 (HTML standard): so the value is the ID's UTF-8 bytes, each as
    one character.

    :param request: headers (any mutable mapping), an object with ``.headers`` (a ``requests`` request or session), or a
        WSGI environ.
    :param last_event_id: the ID; ``""`` and ``None`` remove the header.
    :raises EventError: the ID holds CR, LF, NUL or a lone surrogate.
    :raises TypeError: the ID is no text.
    """
    last_event_id = "" if last_event_id is None else last_event_id
    if not isinstance(last_event_id, str):
        raise TypeError(f"a last event ID is text or None, got {type(last_event_id).__name__} {excerpt(last_event_id)}")
    if any(c in last_event_id for c in "\r\n\0"):
        raise EventError("id", last_event_id, "can't be sent as Last-Event-ID: it holds CR, LF or NUL")
    try:
        value = last_event_id.encode("utf-8").decode("latin-1")
    except UnicodeEncodeError as error:
        raise EventError("id", last_event_id, "can't be sent as Last-Event-ID: it holds a lone surrogate") from error
    headers, name = _headers(request, "Last-Event-ID")
    if value:
        headers[name] = value
    else:
        headers.pop(name, None)


def add_accept_mime(request: Any) -> None:
    """Add ``text/event-stream`` to the types that a request accepts, unless it is among them.

    :param request: as for :func:`set_last_event_id`. An ``Accept`` of ``*/*``, which is the default of ``requests``, is
        replaced.
    """
    headers, name = _headers(request, "Accept")
    accept = headers.get(name) or ""
    if isinstance(accept, bytes):
        accept = accept.decode("latin-1")
    types = [item.strip() for item in accept.split(",") if item.strip()]
    if not any(is_event_stream(item) for item in types):
        headers[name] = MEDIA_TYPE if types in ([], ["*/*"]) else ", ".join([*types, MEDIA_TYPE])


def _utf8(value: str | bytes) -> str:
    return (value if isinstance(value, bytes) else value.encode("latin-1", "replace")).decode("utf-8", "replace")


def _headers(request: Any, name: str) -> tuple[MutableMapping[str, Any], str]:
    """The mapping that has a request's headers, and the key of one of them in it.

    The mapping is a WSGI environ, given as such or by a Flask (``environ``) or Django (``META``) request, or else
    headers. Their names are case-insensitive, the keys of a plain dict are not.
    """
    for candidate in (request, getattr(request, "environ", None), getattr(request, "META", None)):
        if isinstance(candidate, MutableMapping) and "REQUEST_METHOD" in candidate:
            return candidate, f"HTTP_{name.upper().replace('-', '_')}"
    headers: Any = getattr(request, "headers", request)
    if headers is None and hasattr(request, "prepare_headers"):
        headers = request.headers = {}
    if not hasattr(headers, "get") or not hasattr(headers, "__setitem__"):
        raise TypeError(
            f"expected headers, a WSGI environ or a request that has one of them, got {type(request).__name__} "
            f"{excerpt(request)}"
        )
    if isinstance(headers, dict):
        name = next((key for key in headers if isinstance(key, str) and key.lower() == name.lower()), name)
    return cast(Any, headers), name
