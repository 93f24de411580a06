"""One service for all flows, and a stream server for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Ear, Service, StreamServer


@pytest.fixture(scope="session")
def ear() -> Iterator[Ear]:
    with Ear() as ear:
        yield ear
        ear.shutdown()


@pytest.fixture(scope="session")
def service(ear: Ear) -> Iterator[Service]:
    service = Service(ear)
    yield service
    assert service.stop() == 0


@pytest.fixture
def server() -> Iterator[StreamServer]:
    with StreamServer() as server:
        yield server
