"""Whose pages may read a stream: the origin of a request, and CORS (Fetch standard, section "CORS protocol").

A browser sends its user's cookies along with an event stream that another site's page opens, and without a preflight.
It keeps the answer from that page unless CORS headers allow it; the stream is opened and produced for all that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["is_same_origin", "with_cors"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_same_origin(environ: Mapping[str, Any]) -> bool:
    """Whether a request comes from a page of this very origin, from no page at all, or from no browser.

    ``Sec-Fetch-Site`` decides where it is sent, as pages can't forge it; else the host in ``Origin`` is compared to
    the request's own. The scheme is not: behind a proxy that ends TLS it is another one.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site:
        return site in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN")
    if not origin:
        return True
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    theirs = _place(origin)
    return theirs is not None and theirs == _place(f"{urlsplit(origin).scheme}://{host}")


def with_cors(
    headers: list[tuple[str, str]], environ: Mapping[str, Any], origins: Collection[str], *, credentials: bool
) -> list[tuple[str, str]]:
    """An answer's headers with those that let pages of these origins read it; the caller's own CORS headers win.

    ``Origin`` is compared as a whole. ``Vary`` is there for every origin, or a cache would give one's answer to
    another.
    """
    if any(name.lower() == "access-control-allow-origin" for name, _ in headers):
        return headers
    result = []
    vary = ["Origin"]
    for name, value in headers:
        if name.lower() == "vary":
            vary = [value] if "origin" in value.lower() or value.strip() == "*" else [value, *vary]
        else:
            result.append((name, value))
    if list(origins) == ["*"]:
        vary = [each for each in vary if each != "Origin"]
        result.append(("Access-Control-Allow-Origin", "*"))
    elif (origin := environ.get("HTTP_ORIGIN")) in origins:
        result.append(("Access-Control-Allow-Origin", str(origin)))
        if credentials:
            result.append(("Access-Control-Allow-Credentials", "true"))
    if vary:
        result.append(("Vary", ", ".join(vary)))
    return result


def _place(origin: str) -> tuple[str, int | None] | None:
    """Host and port; ``None`` for what is no origin, such as ``null``."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
