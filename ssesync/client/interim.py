"""Interim responses (status 1xx; RFC 9110, section 15.2), after which the final response arrives.

http.client returns the first one of status 102 or more as if it were the final response, and so does requests. The
final one is then read from the connection's reader. The sessions of this library skip interim responses as they read
the head; this module does so for a response of another session.
"""

from __future__ import annotations

import io
from typing import Any

import requests
from requests.cookies import extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict
from urllib3.response import HTTPResponse

from .transport import FinalResponse, reader_of

__all__ = ["final_response", "is_interim", "status_of"]


def status_of(response: Any) -> int | None:
    """The status of a response of requests or urllib3.

    :param response: the response.
    :return: the status; ``None`` if the object has none.
    """
    status: int | None = getattr(response, "status_code", None) or getattr(response, "status", None)
    return status


def is_interim(response: Any) -> bool:
    """Whether another response follows this one.

    :param response: the response.
    :return: whether its status is 1xx, but not 101.
    """
    status = status_of(response)
    return isinstance(status, int) and 100 <= status < 200 and status != 101


def final_response(response: Any) -> Any:
    """Wait for the final response after an interim one.

    :param response: a response of requests or urllib3.
    :return: the final response. A response of requests becomes the final one, so that its owner sees the right status
        and headers; in place of one of urllib3 another is returned. If the response is no interim one, or the
        connection can't be read any further, it is returned unchanged.
    :raises Exception: errors of http.client and the socket, if no response arrives.
    """
    raw = getattr(response, "raw", response)
    reader = reader_of(raw) if is_interim(response) else None
    if reader is None:
        return response
    final = _read_final(raw, reader)
    if not isinstance(response, requests.Response):
        return final
    response.raw = final
    response.status_code = final.status
    response.reason = final.reason or ""
    response.headers = CaseInsensitiveDict(final.headers)
    response.encoding = get_encoding_from_headers(response.headers)
    extract_cookies_to_jar(response.cookies, response.request, final)  # type: ignore[no-untyped-call]
    return response


class _Connected:
    """Replaces the socket, from which http.client would make a second reader: the first one has buffered bytes."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._reader


def _read_final(raw: Any, reader: io.BufferedReader) -> HTTPResponse:
    interim = raw._original_response
    answer = FinalResponse(_Connected(reader), method=interim._method)  # type: ignore[arg-type]
    answer.begin()
    connection, pool = raw._connection, raw._pool
    # The connection closes the interim response, and the garbage collector may; neither must close the reader.
    interim.fp = raw._connection = raw._pool = None
    if answer.will_close and connection is not None:
        connection.close()  # the reader keeps the socket, and no other request may use it
    return HTTPResponse(
        body=answer,
        headers=HTTPHeaderDict(answer.headers.items()),
        status=answer.status,
        version=answer.version,
        reason=answer.reason,
        preload_content=False,
        decode_content=raw.decode_content,
        original_response=answer,
        pool=pool,
        connection=connection,
        enforce_content_length=raw.enforce_content_length,
        request_method=interim._method,
        request_url=raw._request_url,
    )
