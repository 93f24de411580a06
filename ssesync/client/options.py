"""The options of ``requests`` that are passed on, for type checkers and for the check of their names."""

from __future__ import annotations

from typing import Any, TypedDict

__all__ = ["RelayOptions", "RequestOptions"]


class RequestOptions(TypedDict, total=False):
    """Those of ``requests`` that are passed on."""

    allow_redirects: bool
    auth: Any
    cert: Any
    cookies: Any
    files: Any
    hooks: Any
    proxies: Any
    verify: Any


class RelayOptions(RequestOptions, total=False):
    """Those of ``requests`` that are passed on to a relay's upstream."""

    data: Any
    headers: Any
    json: Any
    method: str
    params: Any
    stream: bool
    timeout: Any
