"""One request, made on a thread of its own, so that whoever waits for its answer can be told to stop at any moment.

A name look-up, a connection being made and a server that thinks before it answers can't be woken from outside: the
thread that waits for them is left behind. It ends by the request's own timeouts, and closes what it may still get.
On a session of our own its connection is shut as well, through a duplicate of the descriptor, and so it ends at once.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import connection, connectionpool

from ..cancel import CancelToken
from ..locks import make_lock
from ..wire.http import MEDIA_TYPE, set_last_event_id
from .transport import FinalResponse, duplicate, is_urllib3

__all__ = ["Attempt", "Request", "answer_of", "new_session"]

_OURS = {"timeout": "connect_timeout and idle_timeout", "stream": "nothing: it is always on"}
# White space around a header's value is no part of it (RFC 9110, section 5.5), and requests refuses it there.
_AROUND = " \t\v\f\x1c\x1d\x1e\x1f"

_current: contextvars.ContextVar[Attempt | None] = contextvars.ContextVar("ssesync_attempt", default=None)


class Request:
    """What is asked for, anew with every connection. ``url``, ``headers`` and ``params`` may be functions.

    :raises TypeError: an option does not exist.
    """

    def __init__(
        self, session: requests.Session, method: str, varying: dict[str, Any], options: dict[str, Any]
    ) -> None:
        for name in _OURS.keys() & options:
            raise TypeError(f"EventSource takes no {name}=; use {_OURS[name]}")
        try:
            inspect.signature(session.request).bind(method, **varying, **options)
        except TypeError as error:
            raise TypeError(f"EventSource {error}") from None
        except ValueError:
            pass  # it does not say what it takes
        self._session = session
        self._method = method
        self._varying = varying
        self._options = options
        self._sent = False
        #: Whether the next request may be another one.
        self.varies = any(map(callable, varying.values()))
        self._once = next((name for name in ("data", "files") if _read_once(options.get(name))), None)

    def refuse_to_repeat(self) -> None:
        """To be called before the request is needed again.

        :raises TypeError: it has a body that can be read only once.
        """
        if self._once:
            raise TypeError(f"{self._once}= can be read only once, and is sent with every connection: give its bytes")

    def prepare(
        self, last_event_id: str, timeout: tuple[float | None, float | None]
    ) -> Callable[[], requests.Response]:
        """Call the functions; what then sends the request is returned."""
        if self._sent:
            self.refuse_to_repeat()
        values = {name: value() if callable(value) else value for name, value in self._varying.items()}
        headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict()
        headers.update({"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", "Cache-Control": "no-cache"})
        headers.update(values.pop("headers") or {})
        if last_event_id:
            set_last_event_id(headers, last_event_id.strip(_AROUND))
        return functools.partial(self._send, headers=headers, timeout=timeout, **values)

    def _send(self, **values: Any) -> requests.Response:
        self._sent = True
        send = functools.partial(self._session.request, self._method, stream=True, **values, **self._options)
        return answer_of(send, values["headers"].get("Accept"))


def answer_of(send: Callable[[], requests.Response], accept: str | bytes | None) -> requests.Response:
    """Send a request; its answer, also where a hook of the session has raised its status (``raise_for_status()``).

    What such a hook raises for another request is raised: an auth object may ask for a token on the same session. The
    request that is meant here is the one that accepts what was asked for, ``accept``.
    """
    try:
        return send()
    except requests.HTTPError as error:
        answer, asked = error.response, getattr(error.response, "request", None)
        if answer is None or asked is None or asked.headers.get("Accept") != accept:
            raise
        return answer


class Attempt:
    """Makes one request, on a thread of its own and with the caller's context variables.

    :param prepare: does what comes before the request, and returns what sends it. That is left out where nobody waits
        for the answer any more.
    """

    def __init__(self, prepare: Callable[[], Callable[[], requests.Response]]) -> None:
        self._prepare = prepare
        self._lock = make_lock("client.attempt")
        self._settled = CancelToken()  # no threading.Event, which a signal handler must not set
        self._abandoned = False
        self._response: requests.Response | None = None
        self._error: BaseException | None = None
        self._handle: socket.socket | None = None
        context = contextvars.copy_context()
        context.run(_current.set, self)
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="ssesync-connect", daemon=True)

    @property
    def running(self) -> bool:
        """Whether its thread still waits, be it for an answer that nobody wants any more."""
        return self._thread.is_alive()

    def result(self, token: CancelToken) -> requests.Response | None:
        """Make it, once, and wait for the answer; ``None`` as soon as the token is set. What the request raised is
        raised.

        :raises RuntimeError: there can't be another thread.
        """
        # Also when an exception ends the wait, such as Ctrl-C's, which may come while the thread starts.
        abandon = True
        token._add(self._settled.set, own=True)
        try:
            self._thread.start()
            self._settled.wait()
            abandon = token.is_set()
        finally:
            token.remove_callback(self._settled.set)
            response, error = self._take(abandon)
        if error is not None:
            try:
                raise error
            finally:
                del error  # or it would keep itself alive through its traceback
        return response

    def sees(self, sock: socket.socket) -> None:
        """The request goes over this connection now. Called by the connections of :func:`new_session`."""
        with self._lock:
            self._drop_handle()
            self._handle = duplicate(sock)  # None if it is closed already: the request is about to fail
            if self._abandoned:
                self._shut()

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
            too_late = self._abandoned
            if not too_late:
                self._response, self._error = response, error
        del error
        self._settled.set()
        if too_late and response is not None:
            response.close()

    def _take(self, abandon: bool) -> tuple[requests.Response | None, BaseException | None]:
        with self._lock:
            response, self._response = self._response, None
            error, self._error = self._error, None
            self._abandoned = abandon
            if abandon:
                self._shut()
        if not abandon:
            return response, error
        if response is not None:
            response.close()
        return None, None

    def _shut(self) -> None:
        if self._handle is not None:
            try:
                self._handle.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected yet, or no more

    def _drop_handle(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def new_session() -> requests.Session:
    """A session whose connections skip interim answers, and show themselves to the attempt that they serve.

    Where another package is in urllib3's place it is a plain one, and closing a source that connects leaves a thread
    behind as with a session of the caller's.
    """
    session = requests.Session()
    if is_urllib3():
        session.mount("http://", _Adapter())
        session.mount("https://", _Adapter())
    return session


class _Seen:
    """A connection, before it is waited for: when it is made, and when it is used again for another request."""

    response_class: Any = FinalResponse
    sock: Any

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        _show(sock)
        return sock

    def putrequest(self, *args: Any, **options: Any) -> None:
        _show(self.sock)
        super().putrequest(*args, **options)  # type: ignore[misc]


def _show(sock: socket.socket | None) -> None:
    attempt = _current.get()
    if attempt is not None and sock is not None:
        attempt.sees(sock)


# Named as what they extend, since their names stand in the messages of errors.


class HTTPConnection(_Seen, connection.HTTPConnection):
    """A connection that shows itself."""


class HTTPSConnection(_Seen, connection.HTTPSConnection):
    """A connection over TLS that shows itself."""


class HTTPConnectionPool(connectionpool.HTTPConnectionPool):
    """A pool of connections that show themselves."""

    ConnectionCls = HTTPConnection


class HTTPSConnectionPool(connectionpool.HTTPSConnectionPool):
    """A pool of connections over TLS that show themselves."""

    ConnectionCls = HTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):  # whose connections are of another kind
            _use_our_pools(manager)
        return manager

    def close(self) -> None:
        # urllib3 forgets its pools and leaves their connections to the garbage collector, but a response that someone
        # keeps (an error has one) keeps its pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def _use_our_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


def _read_once(body: Any) -> bool:
    """Whether a body, or a part of it, is gone once it was sent."""
    if isinstance(body, Mapping):
        body = list(body.values())
    if isinstance(body, (list, tuple)):
        return any(map(_read_once, body))
    return hasattr(body, "read") or isinstance(body, Iterator)
