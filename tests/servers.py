"""Servers as processes of their own: the command of each, starting, reaching, leaving and ending one.

Which servers a folder's tests use, and what is expected of each there, is in that folder's ``kinds.py``.
"""

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil
import trustme

from tests.http_client import TIMEOUT, Connection, Response

ROOT = Path(__file__).resolve().parents[1]
#: gunicorn's configurations: without the library's hooks, and with them.
SETTINGS = "tests/gunicorn_settings.py"
HOOKS = "tests/gunicorn_hooks.py"
#: A server's command, given a listening socket's descriptor and its port.
Command = Callable[[int, int], list[str]]

GTHREAD = ("--worker-class", "gthread", "--threads", "4")
SYNC = ("--worker-class", "sync")


@dataclass(frozen=True)
class Kind:
    """A way to start a server."""

    name: str
    command: Command
    #: ``"tcp"``, ``"unix"`` or ``"tls"``.
    transport: str = "tcp"
    #: Can serve while a stream is open.
    concurrent: bool = True
    #: Takes a listening socket; else finds its own port.
    inherits: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def place_of(app: str) -> str:
    """Return where a server finds an application.

    :param app: the name of its module in ``tests/apps``, or ``MODULE:NAME``.
    """
    return app if ":" in app else f"tests.apps.{app}:application"


def gunicorn(*options: str, app: str, config: str = SETTINGS) -> Command:
    """A gunicorn with one worker, unless the options say otherwise."""
    return lambda descriptor, port: [
        sys.executable, "-m", "gunicorn", "--config", config, "--bind", f"fd://{descriptor}", "--workers", "1",
        *options, place_of(app),
    ]  # fmt: skip


def launch(name: str, app: str) -> Command:
    """One of the servers of ``tests/launch.py``."""
    return lambda descriptor, port: [sys.executable, "-m", "tests.launch", name, str(descriptor), place_of(app)]


def runserver(*options: str) -> Command:
    """Django's own server, with the settings of the environment."""
    return lambda descriptor, port: [
        sys.executable, "-m", "django", "runserver", "--noreload", *options, f"127.0.0.1:{port}"
    ]  # fmt: skip


def flask_run(app: str) -> Command:
    """Flask's own server."""
    return lambda descriptor, port: [sys.executable, "-m", "flask", "--app", place_of(app), "run", "--port", str(port)]


def uvicorn(app: str) -> Command:
    """An ASGI server."""
    return lambda descriptor, port: [
        sys.executable, "-m", "uvicorn", "--fd", str(descriptor), "--lifespan", "off", place_of(app)
    ]  # fmt: skip


def uwsgi(app: str, *options: str) -> Command:
    """uWSGI, which comes as a wheel with its program."""

    def command(descriptor: int, port: int) -> list[str]:
        program = shutil.which("uwsgi", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert program is not None
        return [
            program, "--http-socket", f"127.0.0.1:{port}", "--master", "--threads", "4", "--die-on-term", "--need-app",
            "--virtualenv", sys.prefix, "--module", place_of(app), *options,
        ]  # fmt: skip

    return command


@dataclass
class Certificate:
    """A certificate for 127.0.0.1: gunicorn's options for it, and the context of a client that accepts it."""

    options: list[str]
    context: ssl.SSLContext

    @classmethod
    def issue(cls, folder: Path) -> Certificate:
        """Make one, with its files in a folder."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return cls(["--certfile", str(folder / "certificate.pem"), "--keyfile", str(folder / "key.pem")], context)

    def added_to(self, kind: Any) -> Any:
        """The kind with the options in front of its application, if it serves over TLS."""
        plain = kind.command
        if kind.transport != "tls":
            return kind
        return replace(kind, command=lambda *where: [*plain(*where)[:-1], *self.options, plain(*where)[-1]])


class Wire(Connection):
    """A connection over whatever socket, with the ways of leaving it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
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
            self.socket.settimeout(TIMEOUT)
        return bool(self.received)


class Server:
    """A running server. Its log is a file that :meth:`log` reads."""

    #: Connections that may wait to be accepted.
    backlog = 128
    #: An ordinary request that is answered once the server is ready, and with what; ``None`` is anything.
    ready: tuple[str, str | None] = ("/plain", "plain")
    #: For Django, where the kind's environment does not say it.
    django_settings = "tests.apps.django_project.settings.streams"

    def __init__(self, kind: Kind, folder: Path, tls: ssl.SSLContext | None = None, **sockopts: int) -> None:
        self.kind = kind
        self._tls = tls
        self._log = folder / "log"
        self._unix = str(folder / "socket")
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": self.django_settings,
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
            return socket.create_server(("127.0.0.1", 0), backlog=self.backlog)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._unix)
        listener.listen(self.backlog)
        return listener

    def _wait_until_ready(self) -> None:
        def answers() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind.name} ended with {self.process.returncode}:\n{self.log()}")
            try:
                return self.fetch(self.ready[0]) == self.ready[1] or self.ready[1] is None
            except (OSError, EOFError):
                return False

        if not eventually(answers, within=90):
            raise RuntimeError(f"{self.kind.name} did not answer:\n{self.log()}")

    def connect(self, *, receive_buffer: int | None = None) -> Wire:
        unix = self.kind.transport == "unix"
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        try:
            sock.settimeout(TIMEOUT)
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

    def log(self, start: int = 0) -> str:
        """What it has logged, from a place on that :attr:`log_size` gave."""
        with self._log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    @property
    def log_size(self) -> int:
        return self._log.stat().st_size

    def logs(self, text: str) -> bool:
        return eventually(lambda: text in self.log())

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def leaves(self, within: float = TIMEOUT) -> bool:
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


def eventually(condition: Callable[[], object], within: float = TIMEOUT) -> bool:
    """Whether the condition holds sooner or later."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children_of(pid: int) -> list[int]:
    """The processes that a process has started.

    psutil reads the state of all processes for this: 18 ms each time, while tests wait for new workers.
    """
    try:
        return sorted(
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        )
    except OSError:  # kernels may be without these files, and threads end
        return sorted(child.pid for child in psutil.Process(pid).children())


@contextlib.contextmanager
def running(kind: Kind, folder: Path, tls: ssl.SSLContext | None = None, **sockopts: int) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(kind, folder, tls, **sockopts)
    try:
        yield server
    finally:
        server.stop()


S = TypeVar("S", bound=Server)


class Fleet(Generic[S]):
    """Starts each server when it is first asked for; ends all together.

    :param make: starts a server of a kind, with a folder of its own.
    """

    def __init__(self, folder: Path, make: Callable[[Any, Path], S]) -> None:
        self._folder = folder
        self._make = make
        self._count = 0
        self._running: dict[str, S] = {}

    @classmethod
    def with_certificate(cls, folder: Path, server: Callable[..., S], certificate: Certificate) -> Fleet[S]:
        """One whose servers present this certificate where their kind serves over TLS."""

        def make(kind: Any, folder: Path) -> S:
            return server(certificate.added_to(kind), folder, certificate.context if kind.transport == "tls" else None)

        return cls(folder, make)

    def __call__(self, kind: Any) -> S:
        if kind.name not in self._running:
            self._running[kind.name] = self.start(kind)
        return self._running[kind.name]

    def start(self, kind: Any) -> S:
        """A new one, which the caller ends."""
        # Short, as a unix socket's path may have 107 bytes.
        folder = self._folder / str(self._count)
        self._count += 1
        folder.mkdir()
        return self._make(kind, folder)

    def __enter__(self) -> Fleet[S]:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._running.values():
            server.process.terminate()
        for server in self._running.values():
            server.stop()
