"""Asynchronous producers in synchronous views: on one thread, whatever the number of clients."""

from __future__ import annotations

import json
import signal

import pytest

from tests.servers import Server, eventually

from .conftest import KINDS, PATIENT, Start, requested

ON_EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.matrix] if name == "werkzeug" else []) for name in KINDS]
)
MANY = 200


def notes(server: Server) -> list[str]:
    found: list[str] = json.loads(server.fetch("/async/notes"))
    return found


@ON_EACH
def test_two_hundred_answers_take_one_thread(start: Start, name: str) -> None:
    server = start(name)
    with requested(server, "/async/waits?name=view") as [response]:
        response.expect(b":ok\ndata: one\n\n")
        before = server.state()
        with requested(server, "/async/waits?name=view", MANY) as responses:
            for each in responses:
                each.expect(b":ok\ndata: one\n\n")
            state = server.state()
            assert state["tiers"] == {"detached": MANY + 1, "served": 0}
            assert state["producers"]["running"] == state["producers"]["asynchronous"] == MANY + 1
            assert state["threads"] <= before["threads"] + 4  # of the executor
            server.fetch("/async/go")
            for each in [response, *responses]:
                assert each.read() == b"data: two /async/waits view ssesync-event-loop\n\n"
                assert each.end == ("last chunk" if each.chunked else "eof")
    assert eventually(lambda: server.state()["producers"]["running"] == 0)
    assert server.state()["closed"] == {"done": MANY + 1}


@ON_EACH
def test_a_client_that_leaves_cancels_its_producer_where_that_waits(start: Start, name: str) -> None:
    """Before one that is asked for its next event notices it: both clients leave in that order."""
    server = start(name)
    with requested(server, "/async/endless") as [second], requested(server, "/async/synchronous") as [first]:
        second.expect(b":ok\ndata: one\n\n")
        first.expect(b":ok\ndata: one\n\ndata: step\n\n")  # so it has half a second until its next one
    assert eventually(lambda: len(notes(server)) == 2)
    assert notes(server) == ["the asynchronous one was cancelled", "the synchronous one was closed"]
    assert eventually(lambda: server.state()["producers"]["running"] == 0)
    assert server.state()["closed"] == {"client_gone": 2}


@pytest.mark.parametrize("name", PATIENT)
def test_a_process_that_stops_waits_for_those_that_finish(start: Start, name: str) -> None:
    server = start(name)
    with requested(server, "/async/short", 20) as responses, requested(server, "/async/endless?id=1") as [endless]:
        for each in responses:
            each.expect(b":ok\ndata: one\n\n")
        endless.expect(b":ok\nid: 1\ndata: one\n\n")
        server.signal(signal.SIGTERM)
        assert endless.read().startswith(b"retry: ")  # its client can resume
        for each in responses:
            assert each.read() == b"data: two\n\n"
            assert each.end == "last chunk"
    assert server.leaves()
    assert "Traceback" not in server.log()


def test_an_exception_before_the_first_event_has_its_status(start: Start) -> None:
    with requested(start("gthread"), "/async/missing") as [response]:
        assert response.status == 404


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_a_later_exception_is_an_error_event(start: Start, name: str) -> None:
    server = start(name)
    with requested(server, "/async/fails") as [response]:
        data = response.read_broken()
        assert data.startswith(b":ok\ndata: one\n\nevent: error\n")
        assert b"swordfish" not in data
    assert server.logs("swordfish")


def test_while_the_client_does_not_read_no_more_is_asked_for(start: Start) -> None:
    """The system takes some 4 MB, the mailbox one: far less than the hundred that there would be."""
    server = start("gthread")
    with requested(server, "/async/large") as [large], requested(server, "/async/waits") as [other]:
        other.expect(b":ok\ndata: one\n\n")

        def has_stopped() -> bool:
            before = len(notes(server))
            server.fetch("/async/notes")
            return len(notes(server)) == before > 10

        assert eventually(has_stopped)
        assert len(notes(server)) < 400
        assert len(large.read()) == 4 + 1000 * 100_008
    assert len(notes(server)) == 1000
