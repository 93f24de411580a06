"""Servers for one test each, and clients of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import Response
from tests.logs import show_if_failed
from tests.servers import GTHREAD, SYNC, Kind, Server, gunicorn, launch, running

__all__ = ["KINDS", "Start", "asked"]

APP = "tests.live.answers.app:app"
KINDS = {
    "gthread": Kind("gthread", gunicorn(*GTHREAD, app=APP)),
    "sync": Kind("sync", gunicorn(*SYNC, app=APP)),
    "werkzeug": Kind("werkzeug", launch("werkzeug", APP)),
}


@contextlib.contextmanager
def asked(server: Server, target: str, count: int = 1) -> Iterator[list[Response]]:
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
            kind = KINDS[name]
            variables = {**kind.environment, **(environment or {}), "OPTIONS": json.dumps(options)}
            kind = Kind(kind.name, kind.command, environment=variables)
            server = stack.enter_context(running(kind, tmp_path))
            show_if_failed(request.node, name, server.log)
            return server

        yield give
