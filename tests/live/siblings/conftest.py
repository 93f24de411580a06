"""Fixtures: servers whose workers take over each other's clients."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.channels.processes import Gunicorn, Publisher
from tests.logs import show_if_failed
from tests.redis_server import KEEPING, RedisServer

from .clients import Crowd


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), *KEEPING) as server:
        yield server


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for sockets, whose path must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def serve(request: pytest.FixtureRequest, tmp_path: Path, runtime: Path) -> Iterator[Callable[..., Gunicorn]]:
    """Starts a server, which ends with the test, and leaves no socket."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, *options: str, folder: Path = tmp_path, **environment: str) -> Gunicorn:
            url = f"sqlite:///{folder}/log.db"
            if kind == "redis":
                url = f"{request.getfixturevalue('redis_server').url}?prefix={uuid.uuid4().hex}"
            if kind == "memory":
                url = "memory://"
            server = Gunicorn(
                tmp_path, url, *options, app="siblings",
                environment={"TESTS_LOADING": str(tmp_path / "loading"), **environment},
            )  # fmt: skip
            show_if_failed(request.node, "gunicorn", server.log)
            stack.callback(server.stop)
            return server.start()

        yield start
    assert not list(runtime.glob("*/*"))


@pytest.fixture
def join(request: pytest.FixtureRequest) -> Iterator[Callable[..., Crowd]]:
    """Connects a crowd of clients to a server."""
    with contextlib.ExitStack() as stack:

        def connect(server: Gunicorn, count: int, channels: list[str], **options: str) -> Crowd:
            crowd = Crowd(server.port)
            stack.callback(crowd.stop)
            crowd.join(count, channels, **options)
            return crowd

        yield connect


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Starts a process that publishes until it is told to finish."""
    with contextlib.ExitStack() as stack:

        def start(server: Gunicorn, channels: list[str], *options: str) -> Publisher:
            publisher = Publisher(tmp_path, server.broker, *channels, *options)
            stack.callback(publisher.kill)
            return publisher

        yield start
