"""The origin of a request, and CORS headers for pages that may read a stream (Fetch standard, "CORS protocol").

A browser sends its user's cookies with the request for an event stream that another site's page opens, and without a
preflight. It hides the response from that page unless CORS headers allow it; the server opens the stream all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["is_same_origin", "with_cors"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_same_origin(environ: Mapping[str, Any]) -> bool:
    """Whether a request comes from a page of the same origin, from no page at all, or from no browser.

    If ``Sec-Fetch-Site`` is sent, it decides, as pages can't forge it; else the host in ``Origin`` is compared to that
    of the request. The scheme is not compared: behind a proxy that terminates TLS it is another one.

    :param environ: the request's WSGI environ.
    :return: whether it does.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site:
        return site in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN")
    if not origin:
        return True
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    theirs = _host_and_port(origin)
    return theirs is not None and theirs == _host_and_port(f"{urlsplit(origin).scheme}://{host}")


def with_cors(
    headers: list[tuple[str, str]], environ: Mapping[str, Any], origins: Collection[str], *, credentials: bool
) -> list[tuple[str, str]]:
    """Add the headers that allow pages of some origins to read a response.

    ``Origin`` is compared as a whole. ``Vary`` is added for every origin, or a cache would serve the response for one
    origin to another.

    :param headers: the response's headers. If CORS headers are among them, they are not changed.
    :param environ: the request's WSGI environ.
    :param origins: the origins; ``["*"]`` for all.
    :param credentials: whether the pages may send cookies.
    :return: the headers.
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


def _host_and_port(origin: str) -> tuple[str, int | None] | None:
    """Host and port; ``None`` for a value that is no origin, such as ``null``."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
