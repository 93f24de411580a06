"""What is Flask's own, on every server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .kinds import WSGI_KINDS, Target
from .switchboard import Switchboard


@pytest.fixture(params=[kind.name for kind in WSGI_KINDS if "flask" in kind.apps])
def target(request: pytest.FixtureRequest, aim: Callable[[str, str], Target]) -> Target:
    return aim(request.param, "flask")


def test_abort_before_the_first_event_gives_its_status(target: Target) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("forbidden"))
        assert response.status == 403
        assert response.header("content-type") == "text/html; charset=utf-8"
        assert b"Forbidden" in response.read()
    assert not target.has_failed()


def test_nothing_is_left_pushed_when_a_client_has_left(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        connection.get(target.path("leave", line=switchboard.port)).expect(b":ok\n")
        producer = switchboard.producer()
    assert switchboard.answer().hear() == {"on_close": "client_gone", "events": 0}
    producer.send("too late")
    assert producer.farewell() == {"closed": target.key, "own_thread": True}
    [thread] = target.facts()["thread"]
    # Where there is a pool, the very thread that served the stream has to answer; it gets its turn.
    for _ in range(100):
        contexts = json.loads(target.fetch("contexts", key=""))
        assert not contexts["left"]
        if target.kind.pool is None or contexts["thread"] == thread:
            break
    else:
        pytest.fail("the thread that served the stream has not come back")
    assert not target.has_failed()


def test_teardown_runs_once_for_the_view_and_once_for_the_producer_on_its_own_thread(
    target: Target, switchboard: Switchboard
) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port))
        response.expect(b":ok\n")
        producer = switchboard.producer()
        producer.end()
        response.read()
    facts = target.facts()
    for name in ("teardown_request", "teardown_appcontext"):
        assert len(facts[name]) == 2
        assert len(set(facts[name])) == 2
        assert facts["thread"][0] in facts[name]
    assert not target.has_failed()
