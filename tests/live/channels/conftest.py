"""Fixtures: brokers, servers that serve many tests, followers that are gone when a test is over."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.logs import show_if_failed
from tests.redis_server import KEEPING, RedisServer

from .followers import Crowd
from .processes import Gunicorn, Publisher


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), *KEEPING) as server:
        yield server


@pytest.fixture(scope="package")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gunicorn]]:
    """Starts a server, once for each name."""
    servers: dict[str, Gunicorn] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str, **options: Any) -> Gunicorn:
            if name not in servers:
                server = Gunicorn(tmp_path_factory.mktemp(name), *arguments, **options)
                stack.callback(server.stop)
                servers[name] = server.start()
            return servers[name]

        yield start
        for server in servers.values():
            server.begin_to_stop()


@pytest.fixture
def broker_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    def make(kind: str) -> str:
        if kind == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            return f"{server.url}?prefix={uuid.uuid4().hex}"
        return f"sqlite:///{tmp_path_factory.mktemp('log')}/channels.db"

    return make


@pytest.fixture
def serve(
    started: Callable[..., Gunicorn], broker_url: Callable[[str], str], request: pytest.FixtureRequest
) -> Callable[..., Gunicorn]:
    """The server of a kind, for all tests that want the same."""

    def give(kind: str, *options: str, **more: Any) -> Gunicorn:
        name = "".join(c if c.isalnum() else "-" for c in "".join((kind, *options, *more.get("environment", ()))))
        server = started(name, broker_url(kind), *options, **more)
        show_if_failed(request.node, "gunicorn", server.log)
        return server

    return give


@pytest.fixture
def crowd_of() -> Iterator[Callable[[Gunicorn], Crowd]]:
    """A crowd in front of a server, and channels that nobody else has."""
    with contextlib.ExitStack() as stack:

        def gather(server: Gunicorn, count: int = 5) -> Crowd:
            crowd = Crowd(server, uuid.uuid4().hex[:8], count)
            stack.callback(crowd.stop)
            return crowd

        yield gather


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Starts a process that publishes to a crowd's channels: until it is told to finish, unless there is a --count."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(0, 1_000_000)

        def start(crowd: Crowd, *options: str) -> Publisher:
            publisher = Publisher(
                tmp_path, crowd.server.broker, *crowd.channels, "--start", str(next(numbers)), *options
            )  # fmt: skip
            stack.callback(publisher.kill)
            return publisher

        yield start
