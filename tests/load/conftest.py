"""Fixtures: servers that end with the test, crowds that leave with it, brokers that several processes have."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.channels.processes import Publisher
from tests.logs import show_if_failed
from tests.redis_server import KEEPING, RedisServer
from tests.servers import Kind

from .crowd import Crowd
from .lasting import Lasting

#: More than any test publishes.
ROOM = "max_events=100000&max_bytes=100000000"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder, *KEEPING) as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Lasting]]:
    """Starts a server, with the broker of a kind, or of a URL."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start(kind: Kind, broker: str = "memory", **sockopts: int) -> Lasting:
            if broker == "redis":
                redis_server: RedisServer = request.getfixturevalue("redis_server")
                broker = f"{redis_server.url}?prefix={uuid.uuid4().hex}&{ROOM}"
            elif broker == "sqlite":
                broker = f"sqlite:///{tmp_path}/channels.db?{ROOM}"
            elif broker == "memory":
                broker = f"memory://?{ROOM}"
            server = Lasting(kind, tmp_path / str(next(numbers)), broker, **sockopts)
            stack.callback(server.stop)
            show_if_failed(request.node, kind.name, server.log)
            return server

        yield start


@pytest.fixture
def crowd_of() -> Iterator[Callable[..., Crowd]]:
    with contextlib.ExitStack() as stack:
        yield lambda server, **options: stack.enter_context(server.crowd(**options))


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Starts a process that publishes to channels of a server, until it is told to finish."""
    with contextlib.ExitStack() as stack:

        def start(server: Lasting, *arguments: str) -> Publisher:
            publisher = Publisher(tmp_path, server.broker, *arguments)
            stack.callback(publisher.kill)
            return publisher

        yield start
