"""README's claim: a gunicorn worker, sync or with four threads, holds a thousand answers."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from ssesync.server.producers import producers
from ssesync.settings import DEFAULTS
from tests.servers import eventually

from .conftest import Start, requested

MANY = 1000


@pytest.fixture(autouse=True)
def _descriptors_for_the_clients() -> Iterator[None]:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(before, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.mark.parametrize("name", ["gthread", pytest.param("sync", marks=pytest.mark.matrix)])
def test_a_worker_holds_a_thousand_answers_and_has_time_for_ordinary_requests(start: Start, name: str) -> None:
    limit = producers._limit(DEFAULTS)
    if limit is not None and limit < MANY:
        pytest.skip(f"the system allows this process {limit} producers")
    server = start(name, keep_alive=None)
    with requested(server, "/waits", MANY) as responses:
        for response in responses:
            response.expect(b":ok\ndata: one\n\n")
        assert server.fetch("/plain") == "plain"
        state = server.state()
        assert state["tiers"] == {"detached": MANY, "served": 0}
        assert state["producers"]["running"] == MANY
        assert server.fetch("/go") == "gone"
        for response in responses:
            assert response.read() == b"data: two\n\n"
            assert response.end == "last chunk"
    assert eventually(lambda: server.state()["producers"]["running"] == 0)
    state = server.state()
    assert (state["refused"], state["closed"]) == (0, {"done": MANY})
