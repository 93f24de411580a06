"""The floor of benchmarks.fanout where there is no C compiler: ``python -m benchmarks.fanout_floor PORT``.

It answers as fanout_floor.c does, whose head describes it. Events go out by the C library's own ``send``, which is
called without letting the interpreter go: as near to a loop in C as Python comes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import selectors
import socket
import sys
from urllib.parse import SplitResult, parse_qs, urlsplit

from .fanout_apps import Spinner, payload

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\n:ok\n\r\n"
)
_DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n0\n"
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_send = ctypes.PyDLL(None, use_errno=True).send
_send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
_send.restype = ctypes.c_ssize_t


def send_all(descriptor: int, data: bytes) -> None:
    """Send all of it."""
    while data:
        sent = _send(descriptor, data, len(data), _FLAGS)
        if sent == len(data):
            return
        if sent >= 0:
            data = data[sent:]
        elif ctypes.get_errno() in (errno.EAGAIN, errno.EWOULDBLOCK):
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()
        else:
            return  # gone: its descriptor will tell


class Floor:
    """The server."""

    def __init__(self, port: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._streams: dict[int, socket.socket] = {}
        self._spinner = Spinner()

    def run(self) -> None:
        """Serve."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> None:
        try:
            request = connection.recv(4096)
        except OSError:
            request = b""
        if not request:
            self._hang_up(connection)
        elif connection.fileno() not in self._streams:
            self._answer(connection, urlsplit(request.decode().split(" ")[1]))

    def _answer(self, connection: socket.socket, url: SplitResult) -> None:
        arguments = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
        if url.path == "/events":
            self._streams[connection.fileno()] = connection
            send_all(connection.fileno(), _HEAD)
            return
        if url.path == "/publish":
            self._publish(arguments["first"], arguments["count"], bool(arguments.get("each")))
        elif url.path == "/spin":
            self._spinner.turn(bool(arguments["on"]))
        send_all(connection.fileno(), _DONE)
        self._hang_up(connection)

    def _publish(self, first: int, count: int, each: bool) -> None:
        frames = []
        for number in range(first, first + count):
            block = f"data: {payload(number)}\n\n".encode()
            frames.append(b"%x\r\n%b\r\n" % (len(block), block))
            if each or number == first + count - 1:
                together, frames = b"".join(frames), []
                for descriptor in self._streams:
                    send_all(descriptor, together)

    def _hang_up(self, connection: socket.socket) -> None:
        self._streams.pop(connection.fileno(), None)
        self._selector.unregister(connection)
        connection.close()


if __name__ == "__main__":
    Floor(int(sys.argv[1])).run()
