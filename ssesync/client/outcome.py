"""What an attempt to read a stream came to: which failures are worth another attempt, and what a server asks for then.

============================  =======================================================
204                           the end; the stream is not to be asked for again
408, 425, 429, 500 to 599     again, after ``Retry-After`` where it is given
other statuses, other types   final
network errors, end of stream again
a bad certificate or URL      final: it would fail the same way again
============================  =======================================================
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from email.utils import mktime_tz, parsedate_tz

import requests
from urllib3.exceptions import HTTPError

from ..errors import ConnectFailed, ReadError, ResponseError, StatusError

__all__ = ["is_transient", "is_unauthorized", "retry_after", "translated"]

_WORTH_ANOTHER = frozenset((408, 425, 429))
# What requests raises for a request that can't be made, however often.
_HOPELESS = (ValueError, requests.TooManyRedirects, requests.exceptions.UnrewindableBodyError)
# float() takes more digits, but past this a delay is past every clamp.
_DIGITS = 18


def translated(error: Exception) -> Exception:
    """An error of requests as this library's, where the network is to blame; else as it is."""
    if isinstance(error, (requests.RequestException, HTTPError)) and not isinstance(error, _HOPELESS):
        return ConnectFailed(f"no answer: {error}")
    return error


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed later."""
    if isinstance(error, StatusError):
        status = error.response.status_code
        return status in _WORTH_ANOTHER or 500 <= status < 600
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
    try:
        return None if date is None else max(0.0, mktime_tz(date) - now)
    except (OverflowError, ValueError):
        return None  # a date that no calendar has


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
