"""Room for the crowds' own ends, and servers for one test."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.logs import show_if_failed
from tests.servers import Kind

from .crowd import Server, running


@pytest.fixture(autouse=True)
def room_for_crowds() -> Iterator[None]:
    """Let this process have as many open files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Kind], Server]]:
    with ExitStack() as stack:

        def give(kind: Kind) -> Server:
            server = stack.enter_context(running(kind, tmp_path))
            show_if_failed(request.node, kind.name, server.log)
            return server

        yield give
