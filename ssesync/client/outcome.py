"""What an attempt to read a stream came to: which failures are worth another attempt, and what a server asks for then.

============================  =======================================================
204                           the end; the stream is not to be asked for again
408, 425, 429, 500 to 599     again, after ``Retry-After`` where it is given
other statuses, other types   final
a coding unknown here         final: the same server would send it again
network errors, end of stream again; an end in order after an event starts the row anew
200, cut in its headers       again
a bad certificate or URL      final: it would fail the same way again
============================  =======================================================
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from email.utils import mktime_tz, parsedate_tz

import requests
from urllib3.exceptions import HTTPError

from ..errors import ConnectFailed, ContentTypeError, ReadError, ResponseError, SSEError, StatusError

__all__ = ["is_transient", "is_unauthorized", "retry_after", "translated"]

_WORTH_ANOTHER = frozenset((408, 425, 429))
# The network's, also where a function of the user's or an adapter meets them by other means than requests.
_NETWORK = (requests.RequestException, HTTPError, ConnectionError, TimeoutError)
# What requests raises for a request that can't be made, however often.
_HOPELESS = (
    ValueError,
    requests.TooManyRedirects,
    requests.URLRequired,
    requests.exceptions.InvalidJSONError,
    requests.exceptions.UnrewindableBodyError,
)
# float() takes more digits, but past this a delay is past every clamp.
_DIGITS = 18


def translated(error: Exception) -> Exception:
    """An error of an attempt as this library's, where the network is to blame; else as it is."""
    if isinstance(error, SSEError) or not isinstance(error, _NETWORK) or isinstance(error, _HOPELESS):
        return error
    if isinstance(error, requests.HTTPError) and error.response is not None and not _passes(error.response.status_code):
        return error  # from raise_for_status(), in a function that asks for a token
    failed = ConnectFailed(f"no answer: {error}")
    failed.__cause__ = error
    return failed


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed later."""
    if isinstance(error, StatusError):
        return _passes(error.response.status_code)
    if isinstance(error, ContentTypeError):
        return _cut_in_headers(error)
    if isinstance(error, ConnectFailed):
        return not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))
    return isinstance(error, ReadError) and not isinstance(error, ResponseError)


def is_unauthorized(error: Exception) -> bool:
    """Whether other credentials may do better."""
    return isinstance(error, StatusError) and error.response.status_code == 401


def retry_after(error: Exception, now: float) -> float | None:
    """Seconds that the answer asks to wait for, as a number or a date (RFC 9110, section 10.2.3); ``None`` if not."""
    if not isinstance(error, ResponseError):
        return None
    value = (error.response.headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:_DIGITS])
    date = parsedate_tz(value)
    if date is None:
        return None
    try:
        # asctime()'s form, which names no zone, means GMT here and not this machine's zone.
        return max(0.0, mktime_tz((*date[:9], date[9] or 0)) - now)
    except (OverflowError, ValueError):
        return None  # a date that no calendar has


def _passes(status: int) -> bool:
    return status in _WORTH_ANOTHER or 500 <= status < 600


def _cut_in_headers(error: ContentTypeError) -> bool:
    """Whether the connection may have ended within the headers: ``http.client`` takes those that came for all."""
    headers = [name.lower() for name in error.response.headers]
    whole = "content-type" in headers and headers[-1] != "content-type"
    return not (whole or error.body or error.response.headers.get("Content-Length") == "0")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it; urllib3 also hands causes on as ``reason`` and as arguments."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
