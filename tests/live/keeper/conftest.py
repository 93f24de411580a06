"""Fixtures: a site with a keeper, on each kind of log that processes share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import KEEPING, RedisServer

from .site import Site


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), *KEEPING) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, f"sqlite:///{tmp_path}/log.db")
    with made.stack:
        yield made


@pytest.fixture
def redis_site(tmp_path: Path, redis_server: RedisServer) -> Iterator[Site]:
    made = Site(tmp_path, f"{redis_server.url}?prefix={uuid.uuid4().hex}")
    with made.stack:
        yield made
