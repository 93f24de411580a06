"""The servers of the three frameworks' applications, what each does with a stream, and the way to one application."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssesync import Settings
from tests import servers
from tests.http_client import TIMEOUT, Connection
from tests.servers import GTHREAD, SYNC, gunicorn, launch, runserver, uvicorn

APPS = ("bare", "flask", "django")
APP = "frameworks"
SETTINGS = "tests.apps.django_project.settings.frameworks"


@dataclass(frozen=True)
class Kind(servers.Kind):
    """A server, and what can be expected of it."""

    apps: tuple[str, ...] = APPS
    #: The body of a stream is chunked; else it ends with the connection.
    chunked: bool = True
    #: The connection takes another request when a stream has ended.
    reusable: bool = True
    #: What comes behind the head that answers HEAD.
    after_head: bytes = b""
    #: Threads that serve, where they are kept from request to request.
    pool: int | None = None
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


KINDS = {
    kind.name: kind
    for kind in (
        Kind("gthread", gunicorn(*GTHREAD, app=APP), pool=4),
        Kind("sync", gunicorn(*SYNC, app=APP), pool=1, concurrent=False, reusable=False),
        Kind("gevent", gunicorn("--worker-class", "gevent", app=APP)),
        Kind("werkzeug", launch("werkzeug", APP), reusable=False),
        Kind("runserver", runserver(), apps=("django",), chunked=False, reusable=False, inherits=False),
        Kind("wsgiref", launch("wsgiref", APP), chunked=False, reusable=False, pool=1, concurrent=False),
        # It closes after every chunked answer, sends the last chunk after HEAD too, and keeps 16 MB for a slow client.
        Kind("waitress", launch("waitress", APP), reusable=False, after_head=b"0\r\n\r\n", pool=4, keeps=16 << 20),
        Kind("uvicorn", uvicorn("django_project.asgi"), apps=("django",)),
    )
}
WSGI_KINDS = [kind for kind in KINDS.values() if kind.name != "uvicorn"]


class Server(servers.Server):
    """A running server with one or all of the applications."""

    kind: Kind
    backlog = 64
    django_settings = SETTINGS

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.ready = (f"{self.place(kind.apps[0])}/plain", None)
        super().__init__(kind, folder)

    def place(self, app: str) -> str:
        """Where the application is mounted."""
        return f"/{app}" if self.kind.apps == APPS else ""


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
        deadline = time.monotonic() + TIMEOUT
        while text not in self.log():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def has_failed(self) -> bool:
        """Whether a traceback was logged during this test."""
        return "Traceback" in self.log()
