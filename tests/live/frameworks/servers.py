"""The servers: how each is started as a process of its own, what it does with a stream, how it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssesync import Settings

from .http import PATIENCE, Connection

ROOT = Path(__file__).resolve().parents[3]
APPS = ("bare", "flask", "django")
#: Seconds until a server must have answered its first request.
START = 40.0


@dataclass(frozen=True)
class Kind:
    """A server, and what can be expected of it."""

    name: str
    #: The arguments of the interpreter, given a listening socket's descriptor and its port.
    command: Callable[[int, int], list[str]]
    apps: tuple[str, ...] = APPS
    #: The body of a stream is chunked; else it ends with the connection.
    chunked: bool = True
    #: The connection takes another request when a stream has ended.
    reusable: bool = True
    #: What comes behind the head that answers HEAD.
    after_head: bytes = b""
    #: Threads that serve, where they are kept from request to request.
    pool: int | None = None
    #: Can serve while a stream is open.
    concurrent: bool = True
    #: Takes a listening socket; else finds its own port.
    inherits: bool = True
    #: Bytes that it keeps by itself for a slow client.
    keeps: int = 0

    @property
    def ahead(self) -> int:
        """Bytes that a producer may be ahead of a client that does not read: what the stream lets wait, once in the
        mailbox and once in the server's hand, the server's own buffers and the kernel's; half as much again for doubt.
        """
        return (2 * Settings().max_pending_bytes + self.keeps + _kernel_buffer()) * 3 // 2


def _kernel_buffer() -> int:
    """The most that the kernel keeps for a connection's sender; 4 MB unless someone has set it."""
    try:
        return int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[-1])
    except OSError:
        return 4 << 20


def _gunicorn(*options: str) -> Callable[[int, int], list[str]]:
    def command(descriptor: int, port: int) -> list[str]:
        return [
            "-m", "gunicorn", "--config", str(ROOT / "tests/live/frameworks/gunicorn_settings.py"), "--bind", f"fd://{descriptor}",
            "--workers", "1", *options, "tests.live.apps.together:application",
        ]  # fmt: skip

    return command


def _launch(name: str) -> Callable[[int, int], list[str]]:
    return lambda descriptor, port: ["-m", "tests.live.frameworks.launch", name, str(descriptor)]


def _runserver(descriptor: int, port: int) -> list[str]:
    return ["-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}"]


def _uvicorn(descriptor: int, port: int) -> list[str]:
    return [
        "-m",
        "uvicorn",
        "--fd",
        str(descriptor),
        "--lifespan",
        "off",
        "tests.live.apps.django_project.asgi:application",
    ]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("gthread", _gunicorn("--worker-class", "gthread", "--threads", "4"), pool=4),
        Kind("sync", _gunicorn("--worker-class", "sync"), pool=1, concurrent=False, reusable=False),
        Kind("gevent", _gunicorn("--worker-class", "gevent")),
        Kind("werkzeug", _launch("werkzeug"), reusable=False),
        Kind("runserver", _runserver, apps=("django",), chunked=False, reusable=False, inherits=False),
        Kind("wsgiref", _launch("wsgiref"), chunked=False, reusable=False, pool=1, concurrent=False),
        # It closes after every chunked answer, sends the last chunk after HEAD too, and keeps 16 MB for a slow client.
        Kind("waitress", _launch("waitress"), reusable=False, after_head=b"0\r\n\r\n", pool=4, keeps=16 << 20),
        Kind("uvicorn", _uvicorn, apps=("django",)),
    )
}
WSGI_KINDS = [kind for kind in KINDS.values() if kind.name != "uvicorn"]


class Server:
    """A running server. Its log is a file that :meth:`log` reads."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self._log = folder / f"{kind.name}.log"
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.live.apps.django_project.settings",
            "TESTS_DATABASE": str(folder / f"{kind.name}.sqlite3"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        # A port that was free a moment ago may be taken by now.
        for attempt in range(3):
            self._start()
            try:
                self._wait_until_ready()
                return
            except RuntimeError:
                self.stop()
                if kind.inherits or attempt == 2:
                    raise

    def _start(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, self._log.open("wb") as log:
            self.port = listener.getsockname()[1]
            descriptor = listener.fileno()
            if not self.kind.inherits:
                listener.close()
            self.process = subprocess.Popen(
                [sys.executable, *self.kind.command(descriptor, self.port)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor] if self.kind.inherits else [],
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind.name} ended with {self.process.returncode}:\n{self.log()}")
            with contextlib.suppress(OSError), Connection(self.port, timeout=START) as connection:
                status = connection.get(f"{self.place(self.kind.apps[0])}/plain").status
                if status != 200:
                    raise RuntimeError(f"{self.kind.name} answers {status}:\n{self.log()}")
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.kind.name} did not answer within {START} s:\n{self.log()}")

    def place(self, app: str) -> str:
        """Where the application is mounted."""
        return f"/{app}" if self.kind.apps == APPS else ""

    def log(self, start: int = 0) -> str:
        with self._log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    @property
    def log_size(self) -> int:
        return self._log.stat().st_size

    def stop(self) -> None:
        self.process.terminate()
        self.wait()

    def wait(self) -> None:
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Target:
    """One application on one server, and the way to it for one test."""

    server: Server
    app: str
    key: str
    log_start: int
    prefix: str = ""

    @property
    def kind(self) -> Kind:
        return self.server.kind

    def path(self, route: str, **query: Any) -> str:
        query.setdefault("key", self.key)
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{self.prefix}{self.server.place(self.app)}/{route}?{text}"

    def url(self, route: str, **query: Any) -> str:
        return f"http://127.0.0.1:{self.server.port}{self.path(route, **query)}"

    def connect(self, **options: Any) -> Connection:
        return Connection(self.server.port, **options)

    def fetch(self, route: str, **query: Any) -> str:
        """The body of an ordinary answer, on a connection of its own."""
        with self.connect() as connection:
            response = connection.get(self.path(route, **query))
            assert response.status == 200
            return response.read().decode()

    def facts(self) -> dict[str, list[Any]]:
        """What the application noted under this test's key."""
        facts: dict[str, list[Any]] = json.loads(self.fetch("facts", key="", of=self.key))
        return facts

    def log(self) -> str:
        return self.server.log(self.log_start)

    def logs(self, text: str) -> bool:
        """Whether the text is logged. Some servers write their log after the answer: so wait a little for it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.log():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def has_failed(self) -> bool:
        """Whether a traceback was logged during this test."""
        return "Traceback" in self.log()


class Servers:
    """Starts each server when it is first asked for, and ends all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        if name not in self._running:
            self._running[name] = Server(KINDS[name], self._folder)
        return self._running[name]

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[Servers]:
        servers = cls(folder)
        try:
            yield servers
        finally:
            for server in servers._running.values():
                server.process.terminate()
            for server in servers._running.values():
                server.wait()
