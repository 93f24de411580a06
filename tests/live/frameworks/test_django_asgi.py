"""Django under ASGI: a synchronous stream is served one event at a time, and ends with its client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import django
import pytest

from tests.http_client import Response

from .kinds import Target
from .switchboard import Switchboard


@pytest.fixture
def target(aim: Callable[[str, str], Target]) -> Target:
    return aim("uvicorn", "django")


@pytest.mark.parametrize("route", ["gate", "writer"])
def test_events_come_one_by_one_as_they_are_produced(target: Target, switchboard: Switchboard, route: str) -> None:
    with target.connect() as connection:
        response = connection.get(target.path(route, line=switchboard.port))
        assert response.status == 200
        response.expect(b":ok\n")
        producer = switchboard.producer()
        for number in range(5):
            producer.send(str(number))
            response.expect(b"data: %d\n\n" % number)
        producer.end()
        assert response.read() == b""
        assert response.end == "last chunk"
    assert not target.has_failed()


def test_an_answer_that_fails_is_incomplete(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("gate", line=switchboard.port))
        response.expect(b":ok\n")
        producer = switchboard.producer()
        producer.send("first")
        response.expect(b"data: first\n\n")
        producer.fail()
        assert response.read_broken().startswith(b"event: error\n")


@pytest.mark.skipif(django.VERSION < (5, 0), reason="Django 4.2 does not listen for a client's leaving under ASGI")
def test_a_client_that_leaves_ends_the_producer(target: Target, switchboard: Switchboard) -> None:
    with target.connect() as connection:
        response = connection.get(target.path("leave", line=switchboard.port))
        response.expect(b":ok\n")
        producer = switchboard.producer()
        producer.send("first")
        assert response.find(b"data: first\n\n").replace(b":keep-alive\n", b"") == b""
    assert switchboard.answer().hear() == {"on_close": "client_gone", "events": 1}
    producer.send("second")
    assert producer.farewell() == {"closed": target.key, "own_thread": True}
    assert target.facts()["on_close"] == ["client_gone"]
    assert not target.has_failed()


def test_many_streams_do_not_block_ordinary_views(target: Target, switchboard: Switchboard) -> None:
    streams = []
    try:
        for _ in range(20):
            connection = target.connect()
            response = connection.get(target.path("gate", line=switchboard.port))
            response.expect(b":ok\n")
            streams.append((connection, response, switchboard.producer()))
        assert target.fetch("plain") == "plain"
        for _, response, producer in streams:
            producer.send("x")
            response.expect(b"data: x\n\n")
            producer.end()
            assert response.read() == b""
    finally:
        for connection, _, _ in streams:
            connection.close()


def test_streams_that_asynchronous_views_make_wait_for_their_first_events_without_the_event_loop(
    target: Target, switchboard: Switchboard
) -> None:
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(5):
            connection = stack.enter_context(target.connect())
            path = target.path("awaited", line=switchboard.port)
            connection.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            waiting.append((connection, switchboard.producer()))
        assert target.fetch("plain") == "plain"
        for connection, producer in waiting:
            producer.send("first")
            response = Response(connection, "GET")
            assert response.status == 200
            response.expect(b":ok\ndata: first\n\n")
            producer.end()
            assert response.read() == b""
    assert not target.has_failed()


@pytest.mark.parametrize(("route", "status"), [("forbidden", 403), ("missing", 404), ("failing", 500)])
def test_what_is_raised_before_the_first_event_gives_its_status(target: Target, route: str, status: int) -> None:
    with target.connect() as connection:
        assert connection.get(target.path(route)).status == status
