"""The servers, started with few open files, and crowds of clients that come to them at once."""

from __future__ import annotations

import contextlib
import resource
import selectors
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pytest

from tests import servers
from tests.servers import HOOKS, Command, Kind, flask_run, uwsgi

#: Seconds without any progress after which a crowd is given up.
CROWDS_PATIENCE = 40.0
APP = "flask_app.overload"
BROWSERS = "text/event-stream"
#: What a stream begins with: by itself, and while refused clients are still to come back.
OPENINGS = (b":ok\n", b"retry: 3000\n")


def gunicorn(*options: str, config: str = HOOKS) -> Command:
    return servers.gunicorn("--graceful-timeout", "5", *options, app=APP, config=config)


GTHREAD = Kind("gthread", gunicorn(*servers.GTHREAD))
SYNC = Kind("sync", gunicorn(*servers.SYNC))
WITHOUT_HOOKS = Kind("without hooks", gunicorn(*servers.GTHREAD, config=servers.SETTINGS))
WERKZEUG = Kind("werkzeug", flask_run(APP), inherits=False)
UWSGI = Kind("uwsgi", uwsgi(APP, "--listen", "128"), inherits=False)


def limited(kind: Kind, soft: int, hard: int | None = None, **environment: str) -> Kind:
    """The same server with other limits of open files."""
    needed = (hard or soft) + 200
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < needed:
        pytest.skip(f"the hard limit of open files is below {needed}")
    plain = kind.command

    def command(descriptor: int, port: int) -> list[str]:
        run = f"ulimit -Sn {soft} && ulimit -Hn {hard or soft} && exec {shlex.join(plain(descriptor, port))}"
        return ["sh", "-c", run]

    return replace(kind, command=command, environment={**kind.environment, **environment})


class Server(servers.Server):
    """A running server with room for a crowd in the queue of its listening socket."""

    backlog = 4096

    def pid(self) -> int:
        return int(self.state()["pid"])


class Crowd:
    """Clients that ask for ``/events`` at the same moment, as browsers do."""

    def __init__(self, server: Server, count: int, accept: str = BROWSERS) -> None:
        self.received: dict[socket.socket, bytearray] = {}
        #: Those who have a stream.
        self.admitted: dict[socket.socket, None] = {}
        #: Those whose connection has ended.
        self.ended: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._request = f"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode()
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", server.port))
            self.received[client] = bytearray()
            self._selector.register(client, selectors.EVENT_WRITE)

    def wait(self, done: Callable[[], bool]) -> bool:
        """Connect, send, and take what comes, until something is so; whether it came to that. A busy machine may need
        long for a large crowd, so it goes on for as long as anything comes."""
        deadline = time.monotonic() + CROWDS_PATIENCE
        while not done():
            if time.monotonic() > deadline:
                return False
            if ready := self._selector.select(0.2):
                deadline = time.monotonic() + CROWDS_PATIENCE
            for key, _ in ready:
                client: socket.socket = key.fileobj  # type: ignore[assignment]
                if key.events == selectors.EVENT_WRITE:
                    client.send(self._request)
                    self._selector.modify(client, selectors.EVENT_READ)
                elif data := client.recv(65536):
                    self._take(client, data)
                else:
                    self.ended.add(client)
                    self._selector.unregister(client)
        return True

    def _take(self, client: socket.socket, data: bytes) -> None:
        self.received[client] += data
        if client not in self.admitted and any(opening in self.body(client) for opening in OPENINGS):
            self.admitted[client] = None

    def body(self, client: socket.socket) -> bytes:
        """What the server has sent after the head, chunks and all."""
        return bytes(self.received[client].partition(b"\r\n\r\n")[2])

    @property
    def refused(self) -> list[socket.socket]:
        return [each for each in self.ended if each not in self.admitted]

    @property
    def cut(self) -> list[socket.socket]:
        """Those whose stream has ended."""
        return [each for each in self.ended if each in self.admitted]

    def is_answered(self) -> bool:
        """Whether every client has a stream or was refused, which ends its connection."""
        return len(self.admitted) + len(self.ended) - len(self.cut) == len(self.received)

    def all_get(self, text: str) -> bool:
        """Whether those who were admitted receive an event."""
        data = f"data: {text}\n\n".encode()
        missing = {each for each in self.admitted if data not in self.received[each]}

        def nobody_is_missing() -> bool:
            missing.difference_update([each for each in missing if data in self.received[each]])
            return not missing

        return self.wait(nobody_is_missing)

    def leave(self, count: int) -> None:
        """Have some of those leave who were admitted."""
        for client in list(self.admitted)[:count]:
            del self.received[client], self.admitted[client]
            self._selector.unregister(client)
            client.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._selector.close()
        for client in self.received:
            client.close()


@contextlib.contextmanager
def running(kind: Kind, folder: Path) -> Iterator[Server]:
    server = Server(kind, folder)
    try:
        yield server
    finally:
        server.stop()
