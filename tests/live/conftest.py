"""Fixtures: the running servers, and the test's end of the telephone line to its producers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator

import pytest

from .servers import WSGI_KINDS, Servers, Target
from .switchboard import Switchboard

AIMED = pytest.StashKey[list[Target]]()
TARGETS = [(kind.name, app) for kind in WSGI_KINDS for app in kind.apps]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers.open(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
def aim(servers: Servers, request: pytest.FixtureRequest) -> Callable[[str, str], Target]:
    """Choose a server and an application. The server's log since then goes into the report of a failure."""

    def choose(server: str, app: str, prefix: str = "") -> Target:
        chosen = servers[server]
        target = Target(chosen, app, uuid.uuid4().hex, chosen.log_size, prefix)
        request.node.stash.setdefault(AIMED, []).append(target)
        return target

    return choose


@pytest.fixture(params=TARGETS, ids="-".join)
def target(request: pytest.FixtureRequest, aim: Callable[[str, str], Target]) -> Target:
    """Every application on every WSGI server."""
    return aim(*request.param)


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    with Switchboard() as switchboard:
        yield switchboard


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for target in item.stash.get(AIMED, []):
            report.sections.append((f"log of {target.kind.name}", target.log()[-20_000:]))
    return report
