"""Open streams hold no database connections between their producers' steps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.apps.line import Line
from tests.http_client import Response
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Kind, Server, eventually

from .kinds import OPENING, gunicorn, path

DJANGO = Kind(
    "django",
    gunicorn("--worker-class", "gthread", "--threads", "24", app="django_project.wsgi"),
)
EVENT = b"data: 42\n\n"


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(DJANGO)


@dataclass
class Stream:
    """An open stream: both ends of it."""

    response: Response
    producer: Line

    def step(self) -> None:
        """Have the producer query, and see the event that it makes of it."""
        self.producer.say(do="query")
        self.response.expect(EVENT)


@contextlib.contextmanager
def streams(server: Server, switchboard: Switchboard, count: int, **query: str) -> Iterator[list[Stream]]:
    """Open streams that have each made a step."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            wire, response = server.open(path(line=switchboard.port, **query))
            stack.enter_context(wire)
            response.expect(OPENING)
            opened.append(Stream(response, switchboard.answer()))
            opened[-1].step()
        yield opened


def comes_to_hold(server: Server, *counts: int) -> bool:
    """Whether the process comes to hold one of these numbers of connections, by Django's book and by the kernel's."""
    expected = [{"connections": count, "files": count} for count in counts]
    return eventually(lambda: json.loads(server.fetch("/connections")) in expected)


def test_twenty_streams_that_query_at_each_step_hold_no_connection_between_steps(
    server: Server, switchboard: Switchboard
):
    with streams(server, switchboard, 20, release_db="step") as opened:
        assert comes_to_hold(server, 0)
        for stream in opened:
            stream.step()
        assert comes_to_hold(server, 0)


@pytest.mark.parametrize(("release_db", "of_views"), [("start", [0]), ("none", [1, 2, 3, 4, 5])])
def test_with_the_other_settings_a_producer_keeps_its_connection_until_it_ends(
    server: Server, switchboard: Switchboard, release_db: str, of_views: list[int]
):
    """With None the view's connection stays open too, as it does behind any other response: one for each thread of the
    server's that ran a view."""
    with streams(server, switchboard, 5, release_db=release_db) as opened:
        assert comes_to_hold(server, *(5 + more for more in of_views))
        for stream in opened:
            stream.step()
        assert comes_to_hold(server, *(5 + more for more in of_views))
        for stream in opened:
            stream.producer.say(do="end")
        assert comes_to_hold(server, *of_views)


def test_a_transaction_round_the_answer_is_warned_of(server: Server, switchboard: Switchboard):
    with streams(server, switchboard, 1, release_db="start", atomic="1"):
        assert server.logs("a transaction holds the database connection default")


def test_an_atomic_block_keeps_its_connection_from_event_to_event_and_is_warned_of_once(
    server: Server, switchboard: Switchboard
):
    with streams(server, switchboard, 1, release_db="step") as [stream]:
        for _ in range(2):
            stream.producer.say(do="atomic")
            stream.response.expect(EVENT)
            assert comes_to_hold(server, 1)
            stream.step()
            assert comes_to_hold(server, 0)
    assert server.log().count("a transaction holds the database connection default") == 1
