"""How soon a server notices that a client has left while nothing is being sent.

``python -m benchmarks.leaving [--clients 200] [--rounds 3]``

A client opens a stream, receives its first event, and closes the connection a moment later. Until then the producer
waits and sends nothing. The time is from the moment before the client's ``close`` until the server's code has learned
of it: both read the clock of the system, which all processes share. Clients come one after the other.

``writer``
    Ours: a Flask view with a writer that waits for ``w.cancelled``. gunicorn with four threads.
``on_close``
    Ours: the ``on_close`` of a view's stream, on the same server.
``generator``
    A plain Flask response of a generator that sends a comment every second, as there is nothing else by which it could
    learn of it, until ``GeneratorExit``. The same gunicorn without our hooks.
``sse_starlette``
    An async generator that waits for a queue, until it is cancelled. uvicorn.

The contestants take turns, round by round. The table has the median, the 99th percentile and the longest time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .processes import AtWork, free_port, wait_for_port
from .timing import machine

#: Seconds until a server must have noticed.
_LIMIT = 30.0
_HOOKED = ["--config", "python:ssesync.gunicorn"]
#: The path of each contestant, and how its server is started.
CONTESTANTS: dict[str, tuple[str, list[str]]] = {
    "writer": ("/writer", ["gunicorn", *_HOOKED, "benchmarks.leaving:flask_app()"]),
    "on_close": ("/on-close", ["gunicorn", *_HOOKED, "benchmarks.leaving:flask_app()"]),
    "generator": ("/generator", ["gunicorn", "benchmarks.leaving:flask_app()"]),
    "sse_starlette": ("/", ["uvicorn", "--factory", "benchmarks.leaving:starlette_app"]),
}


def noticed() -> None:
    """Append the time to the file that the client reads."""
    with Path(os.environ["BENCH_FILE"]).open("a") as file:
        file.write(f"{time.monotonic_ns()}\n")


def flask_app() -> Any:
    """The views on gunicorn."""
    from flask import Flask, Response

    from ssesync_flask import event_writer

    app = Flask(__name__)

    @app.get("/writer")
    @event_writer
    def writer(w: Any) -> None:
        w.write_event("first")
        w.cancelled.wait()
        noticed()

    @app.get("/on-close")
    @event_writer(on_close=lambda reason, stats: noticed())
    def on_close(w: Any) -> None:
        w.write_event("first")
        w.cancelled.wait()

    @app.get("/generator")
    def generator() -> Response:
        def events() -> Iterator[str]:
            try:
                yield "data: first\n\n"
                while True:
                    time.sleep(1)
                    yield ":\n\n"
            finally:
                noticed()

        return Response(events(), mimetype="text/event-stream")

    return app


def starlette_app() -> Any:
    """The view on uvicorn."""
    from sse_starlette import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.routing import Route

    async def events() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"data": "first"}
            await asyncio.Queue[None]().get()
        finally:
            noticed()

    async def view(request: Any) -> EventSourceResponse:
        return EventSourceResponse(events())

    return Starlette(routes=[Route("/", view)])


class Server(AtWork):
    """The server of a contestant."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path, (program, *options) = CONTESTANTS[name]
        self.file = folder / name
        self.file.touch()
        self.port = free_port()
        where = (
            ["--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread", "--threads", "4"]
            if program == "gunicorn"
            else ["--port", str(self.port)]
        )
        command = [sys.executable, "-m", program, *where, "--log-level", "error", *options]
        super().__init__(name, command, {"BENCH_FILE": str(self.file)})

    def _begin(self) -> None:
        wait_for_port(self.port, self.server)

    def seconds(self) -> float:
        """Let one client come and leave.

        :return: the seconds until that was noticed.
        """
        before = len(self.file.read_bytes())
        with socket.create_connection(("127.0.0.1", self.port), timeout=_LIMIT) as client:
            client.sendall(f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            received = b""
            while b"data: first" not in received:
                piece = client.recv(65536)
                if not piece:
                    raise RuntimeError(f"the stream has ended: {received!r}")
                received += piece
            time.sleep(0.02)  # all that belongs to the beginning is over
            left = time.monotonic_ns()
        deadline = time.monotonic() + _LIMIT
        while not (text := self.file.read_bytes()[before:]).endswith(b"\n"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a client that left was not noticed within {_LIMIT:g} s")
            time.sleep(0.0005)
        return (int(text) - left) / 1e9


def main() -> None:
    """Run the benchmark, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200, help="clients of each round; the generator has a tenth")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each")
    options = parser.parse_args()
    print(machine(), flush=True)
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = {name: stack.enter_context(Server(name, Path(folder))) for name in CONTESTANTS}
        for _ in range(options.rounds):
            for name, server in servers.items():
                clients = options.clients // 10 if name == "generator" else options.clients
                found[name] += [server.seconds() for _ in range(clients)]
    print(f"  {'':14} {'median ms':>10} {'p99 ms':>10} {'most ms':>10}")
    for name, seconds in found.items():
        p99 = statistics.quantiles(seconds, n=100)[98]
        print(f"  {name:14} {statistics.median(seconds) * 1e3:10.2f} {p99 * 1e3:10.2f} {max(seconds) * 1e3:10.2f}")


if __name__ == "__main__":
    main()
