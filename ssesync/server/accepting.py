"""Limits for gunicorn, which accepts clients before any code of the library runs: it must not use the descriptors of
detached streams, and must not crash without descriptors.

gthread accepts up to ``worker_connections`` clients (1,000) before it runs a view for one of them. When there is no
descriptor for the next one (EMFILE), gthread and sync end their process, with all its streams. Three measures prevent
that in workers of these two classes (read in gunicorn 22.0, 23.0, 24.1, 25.0, 25.1, 26.2 and 27.0):

- ``worker_connections`` is lowered to the number of descriptors below the floor of detached sockets. Further clients
  wait in the kernel's queue. gunicorn before 24 does not poll its connections while it has so many, not even for
  clients that leave: there :class:`GuardedAccept` leaves the further clients in the queue.
- ``accept()`` of the listening sockets is replaced, on their instances. If the application uses all descriptors, a
  spare one is closed for a moment, and the client is accepted and refused. A client that gets one of the last
  descriptors is refused, too.
- A client that has not sent a byte is not accepted (``TCP_DEFER_ACCEPT``, Linux). An idle connection would take one of
  gthread's threads for five seconds, in gunicorn 24 and 25 for as long as it lasts, and sync's only one. This must be
  set before the first client connects, so only the hooks do it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..text import escape
from . import descriptors
from .refusal import is_event_source, retry_field, unavailable_headers
from .wsgi_server import gunicorn_worker, kind_of

__all__ = ["GuardedAccept", "defer_accept", "prepare"]

logger = logging.getLogger("ssesync")

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM)
# Descriptors that a request needs while it is answered. If fewer are free, the client is refused.
_FOR_A_REQUEST = 4
# Seconds for which a full server sleeps, as the kernel goes on reporting its queue as ready.
_REST = 0.005
# Seconds to wait for the request of a client that has connected.
_REQUEST = 0.01
_LONGEST_REQUEST = 65536
# Seconds between two log lines of the same kind.
_BETWEEN_LINES = 10.0
# Seconds for which the kernel does not report a client that sends no bytes; 129, as seen on Linux 6.18.
_SILENT = 120

Refuse = Callable[[bool], float]
_prepared = False


def prepare(worker: Any, refuse: Refuse) -> None:
    """Divide this process's descriptors between its server and detached streams. Only the first call has an effect.

    :param worker: gunicorn's worker, if it is known.
    :param refuse: called for each refused client, with whether it is a browser; returns the client's reconnection time
        in seconds.
    """
    global _prepared
    if _prepared:
        return
    _prepared = True
    worker = worker or gunicorn_worker()
    kind = kind_of(type(worker))
    if kind == "gthread":
        threads, connections = int(worker.cfg.threads), int(worker.worker_connections)
        division = descriptors.divide(threads, connections)
        is_full = _clamp(worker, threads, division) if division.connections < connections else None
    else:
        descriptors.divide()
        is_full = None
    for listener in worker.sockets if kind else ():
        if type(getattr(listener, "sock", None)) is socket.socket:
            listener.accept = GuardedAccept(listener.sock, bool(worker.cfg.is_ssl), is_full, refuse)


def _clamp(worker: Any, threads: int, division: descriptors.Division) -> Callable[[], bool] | None:
    """Limit the connections of a gthread worker to its descriptors.

    :return: a function that returns whether the worker is full; ``None`` if the worker stops accepting by itself.
    """
    fits, configured = division.connections, worker.worker_connections
    # With the default 1,000 connections and 1,024 descriptors, only few connections are lost.
    level = logging.INFO if fits > configured // 2 else logging.WARNING
    logger.log(
        level,
        "there are descriptors for %d of worker_connections=%d; more clients wait until one has been answered. "
        "Raise the limit of open files (LimitNOFILE=, ulimit -n), it is %d",
        fits,
        configured,
        descriptors.reach(),
    )
    worker.max_keepalived = max(0, fits - threads)
    # Since gunicorn 24 a full worker stops listening and still polls its connections; before, it does neither.
    if callable(getattr(worker, "set_accept_enabled", None)):
        worker.worker_connections = fits
        return None
    return lambda: bool(worker.nr_conns >= fits)


class GuardedAccept:
    """``accept()`` of a listening socket, for one thread.

    :raises BlockingIOError: no client can be accepted now. gunicorn tries again.
    """

    def __init__(self, listener: socket.socket, tls: bool, is_full: Callable[[], bool] | None, refuse: Refuse) -> None:
        self._listener = listener
        self._tls = tls
        self._is_full = is_full
        self._refuse = refuse
        self._spare = _open_spare()
        self._logged = -_BETWEEN_LINES

    def __call__(self) -> tuple[socket.socket, Any]:
        """Accept a client, or raise ``BlockingIOError``."""
        if self._is_full is not None and self._is_full():
            time.sleep(_REST)
            raise BlockingIOError(errno.EAGAIN, "the worker has as many connections as it may")
        try:
            accepted = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self._refuse_with_spare()
            elif error.errno in _NO_MEMORY:
                time.sleep(_REST)
            else:
                raise
            self._log(os.strerror(error.errno))
            raise BlockingIOError(errno.EAGAIN, "a client was refused") from None
        if descriptors.are_free(_FOR_A_REQUEST, self._listener.fileno()):
            return accepted
        self._refuse_client(accepted[0])
        self._log(os.strerror(errno.EMFILE))
        raise BlockingIOError(errno.EAGAIN, "a client was refused")

    def _refuse_with_spare(self) -> None:
        """Accept a client with the spare descriptor, to answer and close it."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        try:
            client, _ = self._listener.accept()
        except OSError:
            time.sleep(_REST)  # another thread has taken the descriptor
        else:
            self._refuse_client(client)
        self._spare = _open_spare()

    def _refuse_client(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if not self._tls:
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(_REQUEST)
        request = b""
        with contextlib.suppress(TimeoutError):
            request = client.recv(_LONGEST_REQUEST)
        browser = _is_browsers(request)
        seconds = self._refuse(browser)
        if browser:
            lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream; charset=utf-8", "Cache-Control: no-store"]
            body = retry_field(seconds)
        else:
            lines = [
                "HTTP/1.1 503 Service Unavailable",
                *(f"{name}: {value}" for name, value in unavailable_headers(seconds)),
            ]
            body = b"the server has no more open files\n"
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        client.send("\r\n".join(lines).encode() + body)
        client.shutdown(socket.SHUT_WR)

    def _log(self, why: str) -> None:
        now = time.monotonic()
        if now - self._logged >= _BETWEEN_LINES:
            self._logged = now
            logger.error(
                "clients are refused, as the process can open no more files (%s): find the files that the application "
                "does not close, or raise the limit of open files (LimitNOFILE=, ulimit -n), it is %d",
                escape(why),
                descriptors.reach(),
            )


def _is_browsers(request: bytes) -> bool:
    """Whether a request is that of an ``EventSource``, by its first bytes."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    accepts = [value for name, _, value in (line.partition(":") for line in lines) if name.lower() == "accept"]
    return len(accepts) == 1 and is_event_source({"REQUEST_METHOD": first.partition(" ")[0], "HTTP_ACCEPT": accepts[0]})


def _open_spare() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def defer_accept(listeners: Iterable[Any], worker_class: type) -> None:
    """Set the option by which the kernel reports connections only when the client has sent data, if there is one.

    :param listeners: gunicorn's.
    :param worker_class: gunicorn's.
    """
    if sys.platform != "linux" or not kind_of(worker_class):
        return
    for listener in listeners:
        with contextlib.suppress(OSError, AttributeError):  # a unix socket, or not one of gunicorn's classes
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENT)


def _after_fork() -> None:
    global _prepared
    _prepared = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
