"""Fixtures: servers for all tests, and servers for one; each must hold nothing of a test when that is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.logs import show_if_failed
from tests.servers import Certificate, Fleet

from .kinds import KINDS, Kind, Server


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Fleet[Server]]:
    with Fleet.with_certificate(tmp_path_factory.mktemp("detached"), Server, certificate) as fleet:
        yield fleet


@pytest.fixture
def use(request: pytest.FixtureRequest, fleet: Fleet[Server]) -> Iterator[Callable[[Kind | str], Server]]:
    """A server by its name, which must be as before when the test is over."""
    used: list[Server] = []

    def give(kind: Kind | str) -> Server:
        server = fleet(KINDS[kind] if isinstance(kind, str) else kind)
        if server not in used:
            used.append(server)
            show_if_failed(request.node, server.kind.name, server.log)
        return server

    yield give
    for server in used:
        server.settle()


@pytest.fixture
def server(request: pytest.FixtureRequest, use: Callable[[Kind | str], Server]) -> Server:
    """The server that an indirect parameter names."""
    return use(request.param)


@pytest.fixture
def start(request: pytest.FixtureRequest, fleet: Fleet[Server]) -> Iterator[Callable[[Kind], Server]]:
    """Starts a server that lasts as long as the test."""
    started: list[Server] = []

    def give(kind: Kind) -> Server:
        started.append(fleet.start(kind))
        show_if_failed(request.node, kind.name, started[-1].log)
        return started[-1]

    yield give
    for server in started:
        server.stop()
