"""The upstream of the relays of benchmarks.answers: ``python -m benchmarks.answers_upstream PORT [CERTIFICATE]``.

Each connection gets an event stream in chunked coding: an event at once, and then ten a second, each a chunk of 250
bytes. With a file that holds certificate and key it is served over TLS. One thread accepts; another goes round the
connections in ten groups, 10 ms apart, so that the load is even.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import sys
import threading
import time

from .fanout_apps import payload

#: Chunks a second, and the bytes of each.
RATE, SIZE = 10, 250
_GROUPS = 10
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_TIMEOUT = 10.0


def chunk(number: int) -> bytes:
    """The chunk of an event."""
    event = f"data: {payload(number)}".ljust(SIZE - 2, "x") + "\n\n"
    return f"{SIZE:x}\r\n{event}\r\n".encode()


class Connection:
    """One stream."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._number = 0

    def begin(self) -> None:
        """Read the request, and send the head and the first event."""
        self._socket.settimeout(_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b""
        while b"\r\n\r\n" not in request:
            piece = self._socket.recv(4096)
            if not piece:
                raise ConnectionError
            request += piece
        self._socket.sendall(_HEAD)
        self._socket.setblocking(False)
        if not self.send():
            raise ConnectionError

    def send(self) -> bool:
        """Send the next event, if there is room for it.

        :return: whether the connection is still of use: one that takes only a part is not.
        """
        data = chunk(self._number)
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        self._number += 1
        return sent == len(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def accept(listener: socket.socket, context: ssl.SSLContext | None, groups: list[list[Connection]]) -> None:
    """Accept connections for good."""
    for number in itertools.count():
        accepted, _ = listener.accept()
        try:
            accepted.settimeout(_TIMEOUT)
            connection = Connection(context.wrap_socket(accepted, server_side=True) if context else accepted)
            connection.begin()
        except OSError:
            accepted.close()
        else:
            groups[number % _GROUPS].append(connection)


def main() -> None:
    """Serve until standard input ends."""
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2])
    groups: list[list[Connection]] = [[] for _ in range(_GROUPS)]
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    threading.Thread(target=accept, args=(listener, context, groups), daemon=True).start()
    threading.Thread(target=send_to_all, args=(groups,), daemon=True).start()
    sys.stdin.read()


def send_to_all(groups: list[list[Connection]]) -> None:
    """Send to each connection, ten times a second."""
    due = time.monotonic()
    for turn in itertools.count():
        due += 1 / RATE / _GROUPS
        time.sleep(max(0.0, due - time.monotonic()))
        group = groups[turn % _GROUPS]
        for connection in [each for each in group if not each.send()]:
            group.remove(connection)
            connection.close()


if __name__ == "__main__":
    main()
