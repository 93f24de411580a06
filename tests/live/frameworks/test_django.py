"""What is Django's own, on every server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.http_client import TIMEOUT

from .kinds import WSGI_KINDS, Target
from .switchboard import Switchboard


@pytest.fixture(params=[kind.name for kind in WSGI_KINDS])
def target(request: pytest.FixtureRequest, aim: Callable[[str, str], Target]) -> Target:
    return aim(request.param, "django")


@pytest.mark.parametrize(("route", "status"), [("forbidden", 403), ("missing", 404)])
def test_a_refusal_before_the_first_event_gives_its_status(target: Target, route: str, status: int) -> None:
    with target.connect() as connection:
        response = connection.get(target.path(route))
        assert response.status == status
        assert response.header("content-type") == "text/html; charset=utf-8"
        response.read()


def test_gzip_middleware_does_not_hold_events_back(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port), Accept_Encoding="gzip, deflate, br")
        assert response.header("content-encoding") in (None, "identity")
        response.expect(b":ok\n")
        producer = switchboard.producer()
        for number in range(3):
            producer.send("x" * 300 + str(number))
            response.expect(b"data: %s%d\n\n" % (b"x" * 300, number))
        producer.end()
        assert response.read() == b""


def test_connections_are_given_back_by_the_view_when_it_streams_and_by_the_producer_after_each_event(
    target: Target, switchboard: Switchboard
) -> None:
    """With CONN_MAX_AGE=None, so that nothing else closes them."""
    before = json.loads(target.fetch("connections"))

    def more(count: int) -> dict[str, int]:
        return {name: number + count for name, number in before.items()}

    with target.connect() as connection:
        response = connection.get(target.path("database", line=switchboard.port))
        producer = switchboard.producer()
        response.expect(b":ok\n")
        assert producer.ask("count") == more(0)
        assert producer.ask("query") == more(1)
        producer.send("first")
        response.expect(b"data: first\n\n")
        assert producer.ask("count") == more(0)
        assert producer.ask("query") == more(1)
        producer.end()
        assert response.read() == b""
    assert target.facts()["in_view"] == [more(1)]
    assert json.loads(target.fetch("connections")) == before


def test_a_producers_connection_is_closed_when_its_client_has_left(target: Target, switchboard: Switchboard) -> None:
    before = json.loads(target.fetch("connections"))
    with target.connect() as connection:
        connection.get(target.path("database", line=switchboard.port)).expect(b":ok\n")
        producer = switchboard.producer()
        assert producer.ask("query")["connections"] == before["connections"] + 1
    assert producer.send_until_closed() == {"closed": target.key, "own_thread": True}
    # It hangs up from within the code whose end closes the connection, which nothing tells of.
    deadline = time.monotonic() + TIMEOUT
    while json.loads(target.fetch("connections", key="")) != before:
        assert time.monotonic() < deadline, "the producer's connection is still open"
        time.sleep(0.02)
