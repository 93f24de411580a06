"""Servers for one test each, and clients of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import Response
from tests.live.frameworks.switchboard import Switchboard
from tests.logs import show_if_failed
from tests.servers import GTHREAD, SYNC, Fleet, Kind, Server, eventually, gunicorn, launch, running

from .leading import SERVERS, Leader

__all__ = ["KINDS", "PATIENT", "Start", "requested"]

APP = "flask_app.answers"
KINDS = {
    "gthread": Kind("gthread", gunicorn(*GTHREAD, app=APP)),
    "sync": Kind("sync", gunicorn(*SYNC, app=APP)),
    "werkzeug": Kind("werkzeug", launch("werkzeug", APP)),
}
#: The same with time for streams that finish.
PATIENT = {
    f"patient {name}": Kind(f"patient {name}", gunicorn(*options, "--graceful-timeout", "20", app=APP))
    for name, options in (("gthread", GTHREAD), ("sync", SYNC))
}


@contextlib.contextmanager
def requested(server: Server, target: str, count: int = 1) -> Iterator[list[Response]]:
    """The responses to so many requests that are sent together."""
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(count):
            wire = stack.enter_context(server.connect())
            wires.append(wire)
            # At once: a sync worker waits for it, while others queue for being accepted.
            wire.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        yield [Response(wire, "GET") for wire in wires]


Start = Callable[..., Server]


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts a server: its name, options of its streams, variables of its environment."""
    with contextlib.ExitStack() as stack:

        def give(name: str, environment: dict[str, str] | None = None, **options: Any) -> Server:
            kind = {**KINDS, **PATIENT}[name]
            variables = {**kind.environment, **(environment or {}), "OPTIONS": json.dumps(options)}
            kind = Kind(kind.name, kind.command, environment=variables)
            server = stack.enter_context(running(kind, tmp_path))
            show_if_failed(request.node, name, server.log)
            return server

        yield give


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet[Server]]:
    with Fleet(tmp_path_factory.mktemp("answers"), Server) as fleet:
        yield fleet


@pytest.fixture
def lead(
    request: pytest.FixtureRequest, fleet: Fleet[Server], switchboard: Switchboard
) -> Iterator[Callable[[str], Leader]]:
    """Opens streams at a server of many tests, whose producers must have ended when the test is over."""
    used: list[Server] = []

    def give(name: str) -> Leader:
        used.append(fleet(SERVERS[name]))
        show_if_failed(request.node, name, used[-1].log)
        return Leader(used[-1], switchboard)

    yield give
    switchboard.close()
    for server in used:
        assert eventually(lambda: server.state()["producers"]["running"] == 0)  # noqa: B023
