"""A WSGI server of one connection, in a thread: one that streams may leave, by what it puts into the environ."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from ssesync import EventStream
from ssesync.wire.chunked import LAST_CHUNK, ChunkDecoder, to_chunk

__all__ = ["Answer", "SmallServer"]

TIMEOUT = 90.0


class Answer:
    """What a client got: the head, the body without its framing, and how it ended."""

    def __init__(self, data: bytes, *, reset: bool) -> None:
        self.head, _, body = data.partition(b"\r\n\r\n")
        self.reset = reset
        #: Whether HTTP calls the answer complete.
        self.complete = not reset
        if b"\r\nTransfer-Encoding: chunked\r\n" in self.head + b"\r\n":
            decoder = ChunkDecoder()
            body = b"".join(decoder.decode(body))
            assert decoder.error is None
            self.complete = decoder.done and not reset
        self.body = body


class SmallServer:
    """Serves one stream to one client, over TCP.

    :param make: makes the stream.
    :param environ: more of the environ.
    :param chunked: the framing.
    """

    def __init__(self, make: Callable[[], EventStream], *, chunked: bool = True, **environ: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.socket()
            self.client.settimeout(TIMEOUT)
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.client.connect(listener.getsockname())
            self._connection, _ = listener.accept()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._make = make
        self._chunked = chunked
        self._environ = {
            "REQUEST_METHOD": "GET",
            "SERVER_SOFTWARE": "Werkzeug/3",
            "SERVER_PROTOCOL": "HTTP/1.1" if chunked else "HTTP/1.0",
            "wsgi.multithread": True,
            "werkzeug.socket": self._connection,
            **environ,
        }
        self.stream: EventStream | None = None
        self.status = ""
        #: Set when the server's thread is free.
        self.free = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            with self._connection:
                self._answer()
        finally:
            self.free.set()

    def _answer(self) -> None:
        stream = self.stream = self._make()
        head = [f"HTTP/1.1 {stream.open(self._environ)}", *(f"{name}: {value}" for name, value in stream.headers)]
        if self._chunked:
            head.append("Transfer-Encoding: chunked")
        pending = "\r\n".join([*head, "", ""]).encode()
        try:
            for piece in stream:
                self._connection.sendall(pending + (to_chunk(piece) if self._chunked else piece))
                pending = b""
            self._connection.sendall(pending + (LAST_CHUNK if self._chunked else b""))
        except OSError:
            pass  # the client has left
        finally:
            stream.close()

    def read(self, pace: Callable[[bytes], object] = lambda received: None) -> Answer:
        """Read to the end.

        :param pace: called with what was read so far, before each read.
        """
        data, reset = b"", False
        try:
            while True:
                pace(data)
                piece = self.client.recv(65536)
                if not piece:
                    break
                data += piece
        except ConnectionResetError:
            reset = True
        self.client.close()
        self._thread.join(TIMEOUT)
        return Answer(data, reset=reset)
