"""The servers, each started as a process of its own: how, and the ways of reaching and leaving it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.live.frameworks.http import PATIENCE, Connection, Response

ROOT = Path(__file__).resolve().parents[3]
#: What every stream begins with.
OPENING = b":ok\n"
FIRST = b"data: first\n\n"


@dataclass(frozen=True)
class Kind:
    """A way to start a server."""

    name: str
    #: The command, given a listening socket's descriptor and its port.
    command: Callable[[int, int], list[str]]
    #: ``"tcp"``, ``"unix"`` or ``"tls"``.
    transport: str = "tcp"
    #: Can serve while a stream is open.
    concurrent: bool = True
    #: Takes a listening socket; else finds its own port.
    inherits: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def gunicorn(*options: str, config: str = "tests/live/streams/gunicorn_settings.py") -> Callable[[int, int], list[str]]:
    """The command of a gunicorn with one worker, unless ``options`` say otherwise."""

    def command(descriptor: int, port: int) -> list[str]:
        return [
            sys.executable, "-m", "gunicorn", "--config", config, "--bind", f"fd://{descriptor}", "--workers", "1",
            *(options if "tests." in options[-1] else [*options, "tests.live.streams.app:application"]),
        ]  # fmt: skip

    return command


def launch(name: str) -> Callable[[int, int], list[str]]:
    return lambda descriptor, port: [sys.executable, "-m", "tests.live.streams.launch", name, str(descriptor)]


def runserver(descriptor: int, port: int) -> list[str]:
    return [sys.executable, "-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}"]


def uwsgi(descriptor: int, port: int) -> list[str]:
    program = shutil.which("uwsgi", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program is not None
    return [
        program, "--http-socket", f"127.0.0.1:{port}", "--master", "--threads", "4", "--die-on-term", "--need-app",
        "--virtualenv", sys.prefix, "--module", "tests.live.streams.app:application",
    ]  # fmt: skip


#: Every server, as it can serve a stream.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("sync", gunicorn("--worker-class", "sync"), concurrent=False),
        Kind("gthread", gunicorn("--worker-class", "gthread", "--threads", "4")),
        Kind("gthread_unix", gunicorn("--worker-class", "gthread", "--threads", "4"), transport="unix"),
        Kind("gthread_tls", gunicorn("--worker-class", "gthread", "--threads", "4"), transport="tls"),
        Kind("gevent", gunicorn("--worker-class", "gevent")),
        Kind("gevent_pywsgi", gunicorn("--worker-class", "gevent_pywsgi")),
        Kind("werkzeug", launch("werkzeug")),
        Kind("runserver", runserver, inherits=False),
        Kind("wsgiref", launch("wsgiref"), concurrent=False),
        Kind("waitress", launch("waitress")),
        Kind("uwsgi", uwsgi, inherits=False),
        Kind("cheroot", launch("cheroot")),
        Kind("pywsgi", launch("pywsgi")),
    )
}


class Wire(Connection):
    """A connection over whatever socket, with the ways of leaving it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self.received = b""

    def fin(self) -> None:
        self.socket.close()

    def rst(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        # Not SSLSocket's own, which forgets the session with it.
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def pipeline(self, data: bytes) -> None:
        self.socket.sendall(data)

    def still_open(self) -> bool:
        """Whether nothing came, not even an end, for a moment."""
        self.socket.settimeout(0.3)
        try:
            self.received += self.socket.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return bool(self.received)


def path(
    place: str = "/stream", *, line: int | None = None, options: dict[str, Any] | None = None, **query: Any
) -> str:
    """The path of a stream with options."""
    if line is not None:
        query["line"] = line
    if options is not None:
        query["options"] = quote(json.dumps(options))
    return f"{place}?{'&'.join(f'{name}={value}' for name, value in query.items())}"


class Server:
    """A running server. Its log is a file that :meth:`log` reads."""

    def __init__(self, kind: Kind, folder: Path, tls: ssl.SSLContext | None = None, **sockopts: int) -> None:
        self.kind = kind
        self._tls = tls
        self._log = folder / "log"
        self._unix = str(folder / "socket")
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.live.streams.django_settings",
            "TESTS_DATABASE": str(folder / "database.sqlite3"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **kind.environment,
        }
        # A port that was free a moment ago may be taken by now.
        for attempt in range(3):
            with self._listen() as listener, self._log.open("wb") as log:
                if kind.transport != "unix":
                    self.port: int = listener.getsockname()[1]
                if "send_buffer" in sockopts:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sockopts["send_buffer"])
                descriptor = listener.fileno()
                if not kind.inherits:
                    listener.close()
                self.process = subprocess.Popen(
                    kind.command(descriptor, getattr(self, "port", 0)),
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[descriptor] if kind.inherits else [],
                )
            try:
                self._wait_until_ready()
                return
            except RuntimeError:
                self.stop()
                if kind.inherits or attempt == 2:
                    raise

    def _listen(self) -> socket.socket:
        if self.kind.transport != "unix":
            return socket.create_server(("127.0.0.1", 0), backlog=128)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._unix)
        listener.listen(128)
        return listener

    def _wait_until_ready(self) -> None:
        def answers() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind.name} ended with {self.process.returncode}:\n{self.log()}")
            try:
                return self.fetch("/plain") == "plain"
            except (OSError, EOFError):
                return False

        if not eventually(answers, within=40):
            raise RuntimeError(f"{self.kind.name} did not answer:\n{self.log()}")

    def connect(self, *, receive_buffer: int | None = None) -> Wire:
        unix = self.kind.transport == "unix"
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        try:
            sock.settimeout(PATIENCE)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(self._unix if unix else ("127.0.0.1", self.port))
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname="127.0.0.1")
        except BaseException:
            sock.close()
            raise
        return Wire(sock)

    def open(
        self, target: str, *, status: int = 200, accept: str = "text/event-stream", **options: Any
    ) -> tuple[Wire, Response]:
        """A connection with the answer to a GET that has begun, as an EventSource makes it."""
        wire = self.connect(**options)
        try:
            response = wire.get(target, Accept=accept)
            assert response.status == status, f"{response.status}: {self.log()[-2000:]}"
        except BaseException:
            wire.close()
            raise
        return wire, response

    def fetch(self, target: str) -> str:
        """The body of an ordinary answer, on a connection of its own."""
        with self.connect() as wire:
            response = wire.get(target, Connection="close")
            assert response.status == 200, f"{response.status}: {self.log()[-2000:]}"
            return response.read().decode()

    def state(self) -> dict[str, Any]:
        """What the process, or the worker that answers, holds."""
        state: dict[str, Any] = json.loads(self.fetch("/state"))
        return state

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def logs(self, text: str) -> bool:
        return eventually(lambda: text in self.log())

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def leaves(self, within: float = PATIENCE) -> bool:
        """Whether the process ends by itself."""
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            if not self.leaves(10):
                # Its workers go with it: they look for their parent.
                self.process.kill()
        self.process.wait()


def eventually(condition: Callable[[], object], within: float = PATIENCE) -> bool:
    """Whether the condition holds sooner or later."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def running(kind: Kind, folder: Path, tls: ssl.SSLContext | None = None, **sockopts: int) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(kind, folder, tls, **sockopts)
    try:
        yield server
    finally:
        server.stop()
