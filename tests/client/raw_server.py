"""A server that plays scripts of raw bytes over real sockets, and keeps what it was asked.

A script is a function of the :class:`Request` that gives the steps of the answer, one after the other:

- ``bytes`` are sent as they are,
- a ``threading.Event`` or ``Semaphore`` is waited for: the test's handshake,
- ``FIN`` ends the connection in order, ``RST`` cuts it,
- ``HOLD`` keeps it open in silence until the client or the test ends.

A script that comes to its end leaves the connection open for the next request.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType

# Longer than any test waits for something that goes well, shorter than the suite's limit for a test.
PATIENCE = 20.0


class Step(Enum):
    FIN = auto()
    RST = auto()
    HOLD = auto()


FIN, RST, HOLD = Step.FIN, Step.RST, Step.HOLD
Steps = Iterable["bytes | threading.Event | threading.Semaphore | Step"]


@dataclass
class Request:
    """What was asked. ``connection`` counts the server's connections from 0."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class RawServer:
    """Listens on 127.0.0.1 while the ``with`` block lasts; each connection is served on a thread of its own."""

    script: Callable[[Request], Steps] | Sequence[bytes | threading.Event | threading.Semaphore | Step]
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    #: Released once for every connection that the client ended while a script held it, or between two requests.
    client_left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/"
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def __enter__(self) -> RawServer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        with socket.create_connection(("127.0.0.1", self.port)):
            pass  # wakes accept(), which closing the listener does not everywhere
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        if error is None:
            if self._errors:
                raise self._errors[0]
            assert not any(thread.is_alive() for thread in self._threads), "the server's threads did not end"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="raw-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._start(self._serve, connection, self.connections - 1)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with self._lock:
                self._open.add(connection)
            while (request := _read_request(connection, number)) is not None:
                self.requests.append(request)
                steps = self.script(request) if callable(self.script) else self.script
                if not self._play(connection, steps):
                    return
            self.client_left.release()
        except OSError:
            self.client_left.release()
        except BaseException as error:
            self._errors.append(error)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _play(self, connection: socket.socket, steps: Steps) -> bool:
        """Whether the connection may have another request."""
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, (threading.Event, threading.Semaphore)):
                if not self._wait(step):
                    return False
            elif step is FIN:
                connection.shutdown(socket.SHUT_RDWR)
                return False
            elif step is RST:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            else:
                assert not connection.recv(1), "the client speaks while the script holds the connection"
                self.client_left.release()
                return False
        return True

    def _wait(self, step: threading.Event | threading.Semaphore) -> bool:
        """Whether the signal came before the test's end."""
        wait = step.wait if isinstance(step, threading.Event) else lambda timeout: step.acquire(timeout=timeout)
        end = time.monotonic() + PATIENCE
        while not wait(0.05):
            if self._closing.is_set():
                return False
            assert time.monotonic() < end, "the test never gave the signal that the script waits for"
        return True


def _read_request(connection: socket.socket, number: int) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (data := connection.recv(65536)):
            return None
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Request(method, target, headers, body, number)


def head(
    *headers: str, status: str = "200 OK", content_type: str | None = "text/event-stream", version: str = "1.1"
) -> bytes:
    """A status line and headers, with the empty line that ends them."""
    lines = [f"HTTP/{version} {status}", *([f"Content-Type: {content_type}"] if content_type else []), *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes) -> bytes:
    """A whole chunked body, one chunk a piece."""
    return b"".join(map(chunk, pieces)) + LAST_CHUNK


def gzip_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Each piece compressed and flushed, as servers do that stream; the trailer comes as a piece of its own."""
    compress = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield compress.compress(piece) + compress.flush(zlib.Z_SYNC_FLUSH)
    yield compress.flush()


def framings() -> dict[str, Callable[[Sequence[bytes]], tuple[bytes, list[list[bytes]], list[bytes | Step]]]]:
    """Every way a body may travel: from its pieces to the head, what is sent for each piece, and what ends it."""

    def one_chunk_each(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head(CHUNKED), [[chunk(piece)] for piece in pieces], [LAST_CHUNK]

    def many_chunks_each(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        sent = [[chunk(piece[at : at + 3]) for at in range(0, len(piece), 3)] for piece in pieces]
        return head(CHUNKED), sent, [LAST_CHUNK]

    def one_chunk_that_trickles(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        size = b"%X\r\n" % sum(map(len, pieces))
        return head(CHUNKED) + size, [[piece] for piece in pieces], [b"\r\n" + LAST_CHUNK]

    def close_delimited(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head("Connection: close"), [[piece] for piece in pieces], [FIN]

    def http_1_0(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head(version="1.0"), [[piece] for piece in pieces], [FIN]

    def content_length(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        return head(f"Content-Length: {sum(map(len, pieces))}"), [[piece] for piece in pieces], []

    def gzip_chunked(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        *sent, end = gzip_pieces(pieces)
        return head(CHUNKED, "Content-Encoding: gzip"), [[chunk(piece)] for piece in sent], [chunk(end) + LAST_CHUNK]

    def gzip_close_delimited(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        *sent, end = gzip_pieces(pieces)
        return head("Content-Encoding: gzip", "Connection: close"), [[piece] for piece in sent], [end, FIN]

    def gzip_content_length(pieces: Sequence[bytes]) -> tuple[bytes, list[list[bytes]], list[bytes | Step]]:
        *sent, end = gzip_pieces(pieces)
        length = sum(map(len, sent)) + len(end)
        return head("Content-Encoding: gzip", f"Content-Length: {length}"), [[piece] for piece in sent], [end]

    return {
        "one chunk each": one_chunk_each,
        "many chunks each": many_chunks_each,
        "one chunk that trickles": one_chunk_that_trickles,
        "close-delimited": close_delimited,
        "HTTP/1.0": http_1_0,
        "Content-Length": content_length,
        "gzip, chunked": gzip_chunked,
        "gzip, close-delimited": gzip_close_delimited,
        "gzip, Content-Length": gzip_content_length,
    }


FRAMINGS = framings()
