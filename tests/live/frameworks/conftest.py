"""Fixtures: the running servers, and the test's end of the telephone line to its producers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.logs import show_if_failed
from tests.servers import Fleet

from .kinds import KINDS, WSGI_KINDS, Server, Target

TARGETS = [(kind.name, app) for kind in WSGI_KINDS for app in kind.apps]


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet[Server]]:
    with Fleet(tmp_path_factory.mktemp("fleet"), Server) as fleet:
        yield fleet


@pytest.fixture
def aim(fleet: Fleet[Server], request: pytest.FixtureRequest) -> Callable[[str, str], Target]:
    """Choose a server and an application. The server's log since then goes into the report of a failure."""

    def choose(server: str, app: str, prefix: str = "") -> Target:
        chosen = fleet(KINDS[server])
        target = Target(chosen, app, uuid.uuid4().hex, chosen.log_size, prefix)
        show_if_failed(request.node, chosen.kind.name, target.log)
        return target

    return choose


@pytest.fixture(params=TARGETS, ids="-".join)
def target(request: pytest.FixtureRequest, aim: Callable[[str, str], Target]) -> Target:
    """Every application on every WSGI server."""
    return aim(*request.param)
