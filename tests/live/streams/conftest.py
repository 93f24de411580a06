"""Fixtures: servers for one test, servers for many, and the test's end of the telephone line to its producers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.logs import show_if_failed
from tests.servers import Certificate, Fleet, Kind, Server, running

from .kinds import KINDS


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Fleet[Server]]:
    with Fleet.with_certificate(tmp_path_factory.mktemp("fleet"), Server, certificate) as fleet:
        yield fleet


@pytest.fixture
def server(request: pytest.FixtureRequest, fleet: Fleet[Server]) -> Server:
    """The server that an indirect parameter names."""
    return fleet(KINDS[request.param])


@pytest.fixture
def serve(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Starts a server that lasts as long as the test."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start(kind: Kind, **sockopts: int) -> Server:
            server = stack.enter_context(running(kind, tmp_path / str(next(numbers)), **sockopts))
            show_if_failed(request.node, kind.name, server.log)
            return server

        yield start
