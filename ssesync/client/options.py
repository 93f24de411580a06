"""The options of ``requests`` that are passed on, for type checkers and for the check of their names."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, TypedDict

import requests

from ..validation import check_names

__all__ = ["RelayOptions", "RequestOptions", "check_request_options"]


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


def check_request_options(
    function: Callable[..., Any], session: requests.Session | None, options: Set[str], known: type
) -> None:
    """Refuse options that do not exist. A session of another kind may have options of its own, which is not checked.

    :param function: the public function, for the message.
    :param session: the session that the request is sent with.
    :param options: the names of the options that the function was called with, beside its own parameters.
    :param known: their set, a ``TypedDict``.
    :raises UnknownOption: a name is not in the set.
    """
    if session is None or type(session).request is requests.Session.request:
        check_names(function, options, known)
