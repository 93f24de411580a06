"""One request of an :class:`EventSource`: how it is made and cancelled, and how its failure is classified.

**Cancelling.** Another thread can't wake the wait for a name, for a connection or for a slow server's response. So the
request is made on a thread of its own, which is abandoned when the request is cancelled: it ends by the request's own
timeouts, and closes the response that it may still get. On a session of this library its connection is shut as well,
through a duplicate of the descriptor, and so it ends at once.

**Retry classification.**

==================================  ==========================================================
204                                 the end; the stream must not be requested again
408, 425, 429, 500 to 599           retried, after ``Retry-After`` where it is given
other statuses, other media types   final
an unsupported content coding       final: the same server would send it again
network errors, end of the stream   retried; an orderly end after an event resets the back-off
200, cut in its headers             retried
a bad certificate or URL            final: it would fail the same way again
==================================  ==========================================================
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from ..cancel import CancelToken
from ..errors import ConnectFailed, ContentTypeError, ReadError, ResponseError, SSEError, StatusError
from ..locks import make_lock
from ..wire.http import MEDIA_TYPE, set_last_event_id
from .session import on_connection
from .transport import duplicate

__all__ = [
    "RESERVED",
    "Attempt",
    "RequestSpec",
    "causes",
    "get_response",
    "is_transient",
    "is_unauthorized",
    "retry_after",
    "translate_error",
]

#: Options of requests that an event source does not take, and what takes their place.
RESERVED = {"timeout": "connect_timeout and idle_timeout", "stream": "nothing: it is always on"}
# White space around a header's value is no part of it (RFC 9110, section 5.5), and requests refuses it there.
_WHITE_SPACE = " \t\v\f\x1c\x1d\x1e\x1f"


class RequestSpec:
    """The request of every connection. ``url``, ``headers`` and ``params`` may be functions.

    :param session: sends the requests.
    :param method: the method.
    :param varying: ``url``, ``headers`` and ``params``.
    :param options: the other options of ``requests``.
    :raises TypeError: an option does not exist.
    """

    def __init__(
        self, session: requests.Session, method: str, varying: dict[str, Any], options: dict[str, Any]
    ) -> None:
        for name in RESERVED.keys() & options:
            raise TypeError(f"EventSource takes no {name}=; use {RESERVED[name]}")
        try:
            inspect.signature(session.request).bind(method, **varying, **options)
        except TypeError as error:
            raise TypeError(f"EventSource {error}") from None
        except ValueError:
            pass  # its signature can't be inspected
        self._session = session
        self._method = method
        self._varying = varying
        self._options = options
        self._sent = False
        #: Whether the next request may differ from this one.
        self.varies = any(map(callable, varying.values()))
        self._once = next((name for name in ("data", "files") if _is_read_once(options.get(name))), None)

    def check_repeatable(self) -> None:
        """Refuse a body that can't be sent again. Called before the request is needed again.

        :raises TypeError: the body can be read only once.
        """
        if self._once:
            raise TypeError(f"{self._once}= can be read only once, and is sent with every connection: pass its bytes")

    def prepare(
        self, last_event_id: str, timeout: tuple[float | None, float | None]
    ) -> Callable[[], requests.Response]:
        """Call the functions among the parameters.

        :param last_event_id: the ID to resume after, ``""`` for none.
        :param timeout: seconds for connecting and for reading.
        :return: a function that sends the request.
        """
        if self._sent:
            self.check_repeatable()
        values: dict[str, Any] = {name: value() if callable(value) else value for name, value in self._varying.items()}
        headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict()
        headers.update({"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", "Cache-Control": "no-cache"})
        headers.update(values.pop("headers") or {})
        if last_event_id:
            set_last_event_id(headers, last_event_id.strip(_WHITE_SPACE))
        return functools.partial(self._send, headers=headers, timeout=timeout, **values)

    def _send(self, **values: Any) -> requests.Response:
        self._sent = True
        send = functools.partial(self._session.request, self._method, stream=True, **values, **self._options)
        return get_response(send, values["headers"].get("Accept"))


def get_response(send: Callable[[], requests.Response], accept: str | bytes | None) -> requests.Response:
    """Send a request, on a session that may have a hook which raises for a status (``raise_for_status()``).

    :param send: sends the request.
    :param accept: the request's ``Accept``. An auth object may request a token on the same session: an error that the
        hook raises for that request, which has another ``Accept``, is raised here too.
    :return: the response, also where the hook has raised for it.
    """
    try:
        return send()
    except requests.HTTPError as error:
        response, request = error.response, getattr(error.response, "request", None)
        if response is None or request is None or request.headers.get("Accept") != accept:
            raise
        return response


class Attempt:
    """Makes one request, on a thread of its own and with the caller's context variables.

    :param prepare: prepares the request, and returns a function that sends it. That function is not
        called once the attempt was abandoned.
    """

    def __init__(self, prepare: Callable[[], Callable[[], requests.Response]]) -> None:
        self._prepare = prepare
        self._lock = make_lock("client.attempt")
        self._settled = CancelToken()  # not a threading.Event, which a signal handler must not set
        self._abandoned = False
        self._response: requests.Response | None = None
        self._error: BaseException | None = None
        self._handle: socket.socket | None = None
        context = contextvars.copy_context()
        context.run(on_connection.set, self._observe)
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="ssesync-connect", daemon=True)

    @property
    def running(self) -> bool:
        """Whether its thread still runs, also after the attempt was abandoned."""
        return self._thread.is_alive()

    def result(self, token: CancelToken) -> requests.Response | None:
        """Make the request and wait for the response. To be called once.

        :param token: abandons the attempt when it is set.
        :return: the response; ``None`` as soon as the token is set. An error of the request is raised.
        :raises RuntimeError: no thread can be started.
        """
        # Also when an exception ends the wait, such as Ctrl-C's, which may be raised while the thread starts.
        abandon = True
        token._add(self._settled.set, own=True)
        try:
            self._thread.start()
            self._settled.wait()
            abandon = token.is_set()
        finally:
            token.remove_callback(self._settled.set)
            response, error = self._take_result(abandon)
        if error is not None:
            try:
                raise error
            finally:
                del error  # or it would keep itself alive through its traceback
        return response

    def _observe(self, sock: socket.socket) -> None:
        """Called with the socket of the connection that the request uses from now on."""
        with self._lock:
            self._drop_handle()
            self._handle = duplicate(sock)  # None if it is closed already: the request is about to fail
            if self._abandoned:
                self._shut_down()

    def _run(self) -> None:
        response: requests.Response | None = None
        error: BaseException | None = None
        try:
            send = self._prepare()
            if not self._abandoned:
                response = send()
        except BaseException as raised:
            error = raised
        with self._lock:
            self._drop_handle()
            abandoned = self._abandoned
            if not abandoned:
                self._response, self._error = response, error
        del error
        self._settled.set()
        if abandoned and response is not None:
            response.close()

    def _take_result(self, abandon: bool) -> tuple[requests.Response | None, BaseException | None]:
        with self._lock:
            response, self._response = self._response, None
            error, self._error = self._error, None
            self._abandoned = abandon
            if abandon:
                self._shut_down()
        if not abandon:
            return response, error
        if response is not None:
            response.close()
        return None, None

    def _shut_down(self) -> None:
        if self._handle is not None:
            try:
                self._handle.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected yet, or no more

    def _drop_handle(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def _is_read_once(body: Any) -> bool:
    """Whether a body, or a part of it, can't be sent twice."""
    if isinstance(body, Mapping):
        body = list(body.values())
    if isinstance(body, (list, tuple)):
        return any(map(_is_read_once, body))
    return hasattr(body, "read") or isinstance(body, Iterator)


_TRANSIENT_STATUSES = frozenset((408, 425, 429))
# Errors of the network, also those of a user's function or an adapter that does not use requests.
_NETWORK = (requests.RequestException, HTTPError, ConnectionError, TimeoutError)
# The errors that requests raises for a request that can't be made, however often.
_INVALID_REQUEST = (
    ValueError,
    requests.TooManyRedirects,
    requests.URLRequired,
    requests.exceptions.InvalidJSONError,
    requests.exceptions.UnrewindableBodyError,
)
# float() accepts more digits, but a delay of so many is longer than every limit.
_DIGITS = 18


def translate_error(error: Exception) -> Exception:
    """Convert the error of an attempt to one of this library's.

    :param error: the error that the attempt has raised.
    :return: a :class:`ConnectFailed` if the network has failed, else the error itself.
    """
    if isinstance(error, SSEError) or not isinstance(error, _NETWORK) or isinstance(error, _INVALID_REQUEST):
        return error
    if (
        isinstance(error, requests.HTTPError)
        and error.response is not None
        and not _is_transient_status(error.response.status_code)
    ):
        return error  # from raise_for_status(), in a function that requests a token
    failed = ConnectFailed(f"no answer: {error}")
    failed.__cause__ = error
    return failed


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later.

    :param error: its error.
    :return: whether it may.
    """
    if isinstance(error, StatusError):
        return _is_transient_status(error.response.status_code)
    if isinstance(error, ContentTypeError):
        return _is_cut_in_headers(error)
    if isinstance(error, ConnectFailed):
        return not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))
    return isinstance(error, ReadError) and not isinstance(error, ResponseError)


def is_unauthorized(error: Exception) -> bool:
    """Whether the request may succeed with other credentials.

    :param error: its error.
    :return: whether it may.
    """
    return isinstance(error, StatusError) and error.response.status_code == 401


def retry_after(error: Exception, now: float) -> float | None:
    """The wait that a response requests, as a number or a date (RFC 9110, section 10.2.3).

    :param error: the error that has the response.
    :param now: seconds since 1970.
    :return: seconds; ``None`` if it requests none.
    """
    if not isinstance(error, ResponseError):
        return None
    value = (error.response.headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:_DIGITS])
    date = parsedate_tz(value)
    if date is None:
        return None
    try:
        # The form of asctime(), which names no zone, means GMT here and not this machine's zone.
        return max(0.0, mktime_tz((*date[:9], date[9] or 0)) - now)
    except (OverflowError, ValueError):
        return None  # a date that no calendar has


def _is_transient_status(status: int) -> bool:
    return status in _TRANSIENT_STATUSES or 500 <= status < 600


def _is_cut_in_headers(error: ContentTypeError) -> bool:
    """Whether the connection may have ended within the headers: ``http.client`` accepts those that came as all."""
    headers = [name.lower() for name in error.response.headers]
    whole = "content-type" in headers and headers[-1] != "content-type"
    return not (whole or error.body or error.response.headers.get("Content-Length") == "0")


def causes(error: BaseException) -> Iterator[BaseException]:
    """List an error and its causes; urllib3 also passes causes on as ``reason`` and as arguments.

    :param error: the error.
    :return: an iterator over the errors, causes after what they have caused.
    """
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
