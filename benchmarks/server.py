"""The server that the readers read from: prebuilt bytes, sent as fast as the socket takes them.

A process of its own, so that no work of the server is done under the reader's interpreter lock. It prints its port,
answers one connection after the other and ends when its standard input does: with the benchmark, however that ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .inputs import Input, chat, hundred_bytes, large

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
CHUNK_128K = 128 * 1024


def cases(scale: int) -> dict[str, tuple[Input, list[bytes], str]]:
    """What is served, each with its chunks of the transfer coding; ``scale`` is about a thousandth of the bytes."""
    small = hundred_bytes(10 * scale)
    tokens = chat(4 * scale)
    big = large(max(1, scale // 128), size=CHUNK_128K)
    return {
        "small": (small, small.blocks, "100-byte chunks, one event each"),
        "tokens": (tokens, tokens.cut(CHUNK_128K), "128 kB chunks of chat-completion events"),
        "big": (big, big.blocks, "128 kB chunks, one event each"),
    }


def body(chunks: list[bytes]) -> bytes:
    """The chunks in chunked transfer coding (RFC 9112, section 7.1)."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@contextmanager
def running(scale: int) -> Iterator[str]:
    """A server in its own process; its URL without the case's name."""
    command = [sys.executable, "-m", __name__, str(scale)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the benchmark's server did not start")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()


def main() -> None:
    """Serve until standard input ends."""
    answers = {name: memoryview(_HEAD + body(chunks)) for name, (_, chunks, _) in cases(int(sys.argv[1])).items()}

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    _answer(connection, answers)
                except OSError:
                    pass  # the reader left


def _answer(connection: socket.socket, answers: dict[str, memoryview]) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(65536)
        if not piece:
            return
        request += piece
    connection.sendall(answers[request.split(b" ", 2)[1].decode().strip("/")])
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)  # so that the reader closes first, and nothing it has not read is lost


if __name__ == "__main__":
    main()
