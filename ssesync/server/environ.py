"""Adapters and proxies before this application that impair streams, found by a request's environ."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from tempfile import SpooledTemporaryFile
from typing import Any

__all__ = ["bridge_of", "counted_address"]

logger = logging.getLogger("ssesync")

# The processes that have warned of a proxy.
_warned: dict[int, object] = {}


def bridge_of(environ: Mapping[str, Any]) -> str | None:
    """Find the adapter that calls this WSGI application inside an ASGI server.

    Each is recognised by the environ that it was seen to pass under uvicorn. None of them passes ``SERVER_SOFTWARE``,
    as WSGI servers do, and all set both ``wsgi.multithread`` and ``wsgi.multiprocess``, as test clients don't.

    :param environ: the WSGI environ of the request.
    :return: its name; ``None`` if there is no known one.
    """
    if "SERVER_SOFTWARE" in environ or not (environ.get("wsgi.multithread") and environ.get("wsgi.multiprocess")):
        return None
    if "asgi.scope" in environ:
        return "a2wsgi"
    body = environ.get("wsgi.input")
    if isinstance(body, SpooledTemporaryFile):
        return "asgiref's WsgiToAsgi"
    return "Starlette's WSGIMiddleware" if isinstance(body, io.BytesIO) else None


def counted_address(environ: Mapping[str, Any], *, limited: bool) -> str:
    """Get the address that is the key of a stream without one.

    A warning is logged, once in a process, if the address is limited and is a proxy's, since all of the proxy's clients
    share the limit then. A middleware that sets ``REMOTE_ADDR`` from ``X-Forwarded-For``, such as Werkzeug's
    ``ProxyFix``, leaves the header in place; then the address is one of those in it.

    :param environ: the WSGI environ of the request.
    :param limited: whether the streams of one key are limited.
    :return: the address; ``""`` if the server sets none.
    """
    address: str = environ.get("REMOTE_ADDR", "")
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "") if limited else ""
    if forwarded and address not in [each.strip() for each in forwarded.split(",")]:
        mine = object()
        if _warned.setdefault(os.getpid(), mine) is mine:  # any thread, without a lock
            logger.warning(
                "max_streams_per_key counts the streams of the address %r, which sends X-Forwarded-For: if that is "
                "your proxy, all of its clients share one limit; set REMOTE_ADDR from the header (werkzeug's "
                "ProxyFix), or pass a key for each stream",
                address,
            )
    return address
