"""Upstreams for relays: a raw server that sends pieces as a test has cut them, and what is asked of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import requests

__all__ = ["FIN", "HOLD", "RST", "RawUpstream", "get"]

TIMEOUT = 60.0
#: What ends a script, beside its own end, which is an orderly one.
FIN, RST, HOLD = object(), object(), object()


class RawUpstream:
    """Serves each connection one script: bytes, which are sent by a call each, functions, which are called, and ends.

    :param script: the steps.
    :param tls: for https.
    :param family: ``AF_UNIX`` with the path as ``address``.
    """

    def __init__(
        self,
        script: Callable[[], Iterable[Any]],
        tls: ssl.SSLContext | None = None,
        family: int = socket.AF_INET,
        address: Any = ("127.0.0.1", 0),
    ) -> None:
        self._script, self._tls = script, tls
        self._listener = socket.socket(family)
        self._listener.bind(address)
        self._listener.listen(64)
        #: Where it is reached.
        self.address = self._listener.getsockname()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.address[1]}/" if family == socket.AF_INET else ""
        #: Released when a client has ended its connection while the script holds it or sends.
        self.left = threading.Semaphore(0)
        #: Bytes that were sent.
        self.sent = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> RawUpstream:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                if not (piece := connection.recv(65536)):
                    return
                request += piece
            self._play(connection)
        except OSError:
            self.left.release()
        finally:
            connection.close()

    def _play(self, connection: socket.socket) -> None:
        for step in self._script():
            if step is FIN:
                # Not TLS's own end.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
                return
            if step is RST:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if step is HOLD:
                if not connection.recv(1):
                    self.left.release()
                return
            if callable(step):
                step()
                continue
            connection.sendall(step)
            self.sent += len(step)
        if isinstance(connection, ssl.SSLSocket):
            connection.unwrap()  # TLS's own end
        else:
            connection.shutdown(socket.SHUT_WR)


def get(url: str, **options: Any) -> requests.Response:
    """A response to be relayed, whose session goes with it."""
    session = requests.Session()
    session.trust_env = False
    return session.get(url, stream=True, timeout=(TIMEOUT, options.pop("read", None)), **options)


def cut(data: bytes, sizes: Iterator[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes."""
    pieces, at = [], 0
    while at < len(data):
        size = next(sizes)
        pieces.append(data[at : at + size])
        at += size
    return pieces
