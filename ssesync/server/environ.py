"""What a request's environ shows of the way it came, where that way makes streams go wrong: each is warned of once in a
process."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from tempfile import SpooledTemporaryFile
from typing import Any

__all__ = ["bridge_of", "counted_address"]

logger = logging.getLogger("ssesync")

_warned: dict[tuple[int, str], object] = {}


def bridge_of(environ: Mapping[str, Any]) -> str | None:
    """The adapter that calls this WSGI application inside an ASGI server, ``None`` where there is none that is known.

    Recognised by what each was seen to pass under uvicorn. None of them passes ``SERVER_SOFTWARE``, which WSGI servers
    do, and all say that there are several threads and several processes, which test clients don't.
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
    """The address that stands for a stream without a key.

    Where that is limited, and is a proxy's, all of the proxy's clients share the limit: this warns of it. What sets
    ``REMOTE_ADDR`` from ``X-Forwarded-For``, such as Werkzeug's ``ProxyFix``, leaves the header in place; then the
    address is one of those in it.
    """
    address: str = environ.get("REMOTE_ADDR", "")
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "") if limited else ""
    if forwarded and address not in [each.strip() for each in forwarded.split(",")] and _first("proxy"):
        _warn_of_proxy(address)
    return address


def _warn_of_proxy(address: str) -> None:
    logger.warning(
        "max_streams_per_key counts the streams of the address %r, which sends X-Forwarded-For: if that is your proxy, "
        "all of its clients share one limit; have REMOTE_ADDR set from the header (werkzeug's ProxyFix), or give each "
        "stream a key",
        address,
    )


def _first(name: str) -> bool:
    """Whether this is the first warning of its kind in this process. Any thread, without a lock."""
    mine = object()
    return _warned.setdefault((os.getpid(), name), mine) is mine
