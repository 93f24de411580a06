"""Open streams hold no database connections between their producers' steps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.apps.line import Line
from tests.live.switchboard import Switchboard

from .servers import OPENING, Kind, Server, Wire, eventually, gunicorn, path

DJANGO = Kind(
    "django",
    gunicorn("--worker-class", "gthread", "--threads", "24", "tests.living.django_app:application"),
    environment={"TESTS_DJANGO": "1"},
)
EVENT = b"data: 42\n\n"


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(DJANGO)


@contextlib.contextmanager
def streams(server: Server, switchboard: Switchboard, count: int, **query: str) -> Iterator[list[Line]]:
    """Open streams, each of which has sent one event since; the lines to their producers."""
    with contextlib.ExitStack() as stack:
        wires: list[Wire] = []
        lines = []
        for _ in range(count):
            wire, response = server.open(path(line=switchboard.port, **query))
            wires.append(stack.enter_context(wire))
            response.expect(OPENING)
            lines.append(switchboard.answer())
            lines[-1].say(do="query")
            response.expect(EVENT)
        yield lines


def held(server: Server) -> int:
    counted = json.loads(server.fetch("/count"))
    assert counted["files"] == counted["connections"]
    return int(counted["files"])


def test_twenty_streams_that_query_at_each_step_hold_no_connection_between_steps(
    server: Server, switchboard: Switchboard
):
    with streams(server, switchboard, 20, release_db="step") as lines:
        assert eventually(lambda: held(server) == 0)
        for line in lines:
            line.say(do="query")
        assert eventually(lambda: held(server) == 0)


@pytest.mark.parametrize(("release_db", "each"), [("start", 1), ("none", 2)])
def test_with_the_other_settings_a_producer_keeps_its_connection_until_it_ends(
    server: Server, switchboard: Switchboard, release_db: str, each: int
):
    """With None the view's connection stays open too, as it does behind any other streaming response."""
    with streams(server, switchboard, 5, release_db=release_db) as lines:
        assert eventually(lambda: held(server) == 5 * each)
        for line in lines:
            line.say(do="end")
        assert eventually(lambda: held(server) == 5 * (each - 1))


def test_a_transaction_round_the_answer_is_warned_of(server: Server, switchboard: Switchboard):
    with streams(server, switchboard, 1, release_db="start", atomic="1"):
        assert server.logs("a transaction holds the database connection default")


def test_an_atomic_block_keeps_its_connection_from_event_to_event_and_is_warned_of_once(
    server: Server, switchboard: Switchboard
):
    wire, response = server.open(path(line=switchboard.port, release_db="step"))
    with wire:
        response.expect(OPENING)
        line = switchboard.answer()
        for _ in range(2):
            line.say(do="atomic")
            response.expect(EVENT)
            assert eventually(lambda: held(server) == 1)
            line.say(do="query")
            response.expect(EVENT)
            assert eventually(lambda: held(server) == 0)
    assert server.log().count("a transaction holds the database connection default") == 1
