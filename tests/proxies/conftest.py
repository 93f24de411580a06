"""Fixtures: one gunicorn, and all proxies in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.detached.kinds import KINDS as SERVERS
from tests.live.detached.kinds import Server
from tests.logs import show_if_failed
from tests.servers import Certificate, eventually

from .fronts import KINDS, Front


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(SERVERS["gthread"], tmp_path_factory.mktemp("server"))
    try:
        yield server
    finally:
        server.stop()


class Fronts:
    """All proxies, started side by side: Varnish compiles its rules, which takes seconds."""

    def __init__(self) -> None:
        self._started: dict[str, Front] = {}
        self._missing: dict[str, str] = {}

    def start(self, server: Server, certificate: Certificate, folder: Callable[[], Path]) -> None:
        for name in KINDS:
            self._start(name, server, certificate, folder())
        for front in self._started.values():
            front.wait()

    def _start(self, name: str, server: Server, certificate: Certificate, folder: Path) -> None:
        try:
            self._started[name] = Front(name, folder, server, certificate)
        except pytest.skip.Exception as skipped:
            self._missing[name] = str(skipped)

    def __getitem__(self, name: str) -> Front:
        """A proxy. Where it is not installed the test is skipped."""
        if name in self._missing:
            pytest.skip(self._missing[name])
        return self._started[name]

    def stop(self) -> None:
        for front in self._started.values():
            front.stop()


@pytest.fixture(scope="package")
def all_fronts(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    certificate = Certificate.issue(tmp_path_factory.mktemp("tls"))
    fronts = Fronts()

    def folder() -> Path:
        path = tmp_path_factory.mktemp("front")
        path.chmod(0o755)
        return path

    try:
        fronts.start(server, certificate, folder)
        yield fronts
    finally:
        fronts.stop()


@pytest.fixture
def front_of(request: pytest.FixtureRequest, server: Server, all_fronts: Fronts) -> Iterator[Callable[[str], Front]]:
    """A proxy by its name. When the test is over, the server must have no stream of it."""
    show_if_failed(request.node, "gunicorn", server.log)

    def give(name: str) -> Front:
        front = all_fronts[name]
        show_if_failed(request.node, name, front.log)
        return front

    yield give
    assert eventually(lambda: not server.state()["streams"])
