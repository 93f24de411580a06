"""Fixtures: servers for all tests, and servers for one; each must hold nothing of a test when that is over."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest
import trustme

from tests.logs import show_if_failed

from .servers import Fleet, Kind, Server


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("detached")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ["--certfile", str(folder / "certificate.pem"), "--keyfile", str(folder / "key.pem")]
    with Fleet.open(folder, (options, context)) as fleet:
        yield fleet


@pytest.fixture
def use(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Callable[[Kind | str], Server]]:
    """A server by its name, which must be as before when the test is over."""
    used: list[Server] = []

    def give(kind: Kind | str) -> Server:
        server = fleet(kind)
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
def start(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Callable[[Kind], Server]]:
    """Starts a server that lasts as long as the test."""
    started: list[Server] = []

    def give(kind: Kind) -> Server:
        started.append(fleet.start(kind))
        show_if_failed(request.node, kind.name, started[-1].log)
        return started[-1]

    yield give
    for server in started:
        server.stop()
