"""A producer in Flask has what belongs to its request, when its stream has left the server as before."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.apps.processes import PROCESSES
from tests.http_client import Response
from tests.servers import eventually

from .leading import Leader

Lead = Callable[[str], Leader]
ON_EACH = pytest.mark.parametrize("name", ["gthread", "sync", "werkzeug", "runserver"])


@ON_EACH
def test_the_request_its_session_and_what_the_view_has_set(lead: Lead, name: str) -> None:
    leader = lead(name)
    with leader.stream("/flask/led", Accept_Language="de, en;q=0.5") as stream:
        assert stream.response.header("x-after") == "yes"
        assert "session=" in (stream.response.header("set-cookie") or "")
        assert stream.do("g") == "somebody"
        assert stream.do("session") == 1
        assert stream.do("request") == ["GET", "/led", leader.key, "yes"]
        assert stream.do("url_for") == "http://test/flask/plain?of=me"
        assert stream.do("translation") == "guten Morgen"
        assert stream.do("variable") == "of the view"
        stream.end()


@ON_EACH
def test_two_streams_do_not_have_each_others(lead: Lead, name: str) -> None:
    first, second = lead(name), lead(name)
    with first.stream("/flask/led", Accept_Language="de") as one:
        with second.stream("/flask/led", count=2, Accept_Language="en") as two:
            for stream, leader, greeting in 2 * ((one, first, "guten Morgen"), (two, second, "good morning")):
                assert stream.do("translation") == greeting
                assert stream.do("request")[2] == leader.key
            two.end()
        one.end()


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_a_session_that_the_producer_writes_is_not_kept_as_the_head_is_out(lead: Lead, name: str) -> None:
    leader = lead(name)
    for detached in (True, False):
        with leader.stream("/flask/led", {"detach": detached}, detached=detached) as stream:
            assert [stream.do("write session"), stream.do("write session")] == [1, 2]
            cookie = stream.response.header("set-cookie") or ""
            stream.end()
        with leader.server.connect() as wire:
            assert Response.read(wire.get("/flask/visits", Cookie=cookie.partition(";")[0])).strip() == b'{"visits":1}'


@ON_EACH
def test_contexts_end_in_the_same_order_as_served(lead: Lead, name: str) -> None:
    leader, order = lead(name), {}
    for detached in (True, False):
        leader.key += "-"
        with leader.stream("/flask/led", {"detach": detached}, detached=detached) as stream:
            stream.end()
        order[detached] = leader.facts(count=7)
    of_producer = ["the producer's end", "teardown_request", "teardown_appcontext"]
    at_end = ["on_close", "call_on_close"]
    for found in order.values():
        assert found[:2] == ["teardown_request", "teardown_appcontext"]  # the view's
        # The client's end and the producer's are on two threads.
        assert [each for each in found[2:] if each in of_producer] == of_producer
        assert [each for each in found[2:] if each in at_end] == at_end
        assert len(found) == 7


@ON_EACH
def test_a_generator_with_flasks_own_wrapper(lead: Lead, name: str) -> None:
    leader = lead(name)
    with leader.stream("/flask/with-context") as stream:
        assert stream.do("request") == "/with-context"
        stream.end()
    assert leader.facts("on_close")[0][0] == "done"
    assert "Traceback" not in leader.server.log()


@ON_EACH
@pytest.mark.parametrize("size", [9_000, 600_000])
def test_a_form_and_its_file_are_read_late(lead: Lead, name: str, size: int) -> None:
    """A large body that Flask has not read keeps the stream on Werkzeug's and Django's server."""
    body = (
        b'--limit\r\nContent-Disposition: form-data; name="name"\r\n\r\nsomebody\r\n--limit\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + size * b"x" + b"\r\n--limit--\r\n"
    )
    content = "multipart/form-data; boundary=limit"
    leaves = size < 32_000 or name in ("gthread", "sync")
    with lead(name).stream("/flask/led", body=body, detached=leaves, Content_Type=content) as stream:
        assert stream.do("form") == "somebody"
        assert stream.do("file") == size
        stream.end()


@ON_EACH
def test_with_flask_sqlalchemy_no_connection_is_held_between_steps(lead: Lead, name: str) -> None:
    """The pool has one connection."""
    leader = lead(name)
    with leader.stream("/flask/led") as one, leader.stream("/flask/led", count=2) as two:
        for _ in range(2):
            assert [one.do("query"), two.do("query")] == [42, 42]
            assert eventually(lambda: leader.server.state()["sqlalchemy"] == [0, 0])
        two.end()
        one.end()
    with leader.stream("/flask/led", {"release_db": "start"}) as stream:
        assert [stream.do("query"), stream.do("held")] == [42, 1]
        stream.end()
    assert eventually(lambda: leader.server.state()["sqlalchemy"] == [0, 0])


@ON_EACH
def test_processes_threads_pools_and_look_ups_of_names(lead: Lead, name: str) -> None:
    """Other streams go on meanwhile."""
    expected = {"program": "program", "fork": 3, "process": 5, "pool": "7", "thread": "thread", "look up": True}
    leader = lead(name)
    with leader.stream("/flask/led") as quiet:
        with leader.stream("/flask/led", count=2) as stream:
            assert {step: stream.do(step) for step in PROCESSES} == expected
            assert quiet.do("session") == 1
            stream.end()
        assert quiet.do("session") == 1
        quiet.end()
    assert [each[0] for each in leader.facts("on_close", 2)] == ["done", "done"]


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_without_threads_clients_are_refused_and_streams_go_on(lead: Lead, name: str) -> None:
    leader = lead(name)
    # All that the server and the library keep are started.
    for _ in range(2):
        with leader.stream("/flask/led") as stream:
            stream.end()
    barrier = threading.Barrier(4)

    def warm() -> None:
        with leader.server.connect() as wire:
            barrier.wait()
            wire.get("/plain").read()

    warming = [threading.Thread(target=warm) for _ in range(4)]
    for thread in warming:
        thread.start()
    for thread in warming:
        thread.join()
    leader.key += "-"
    with leader.stream("/flask/led") as stream:
        assert leader.server.fetch("/threads?allowed=no") == "0"
        try:
            for _ in range(3):
                with leader.server.connect() as wire:
                    response = wire.get(leader.target("/flask/led"))
                    assert response.status == 503
                    assert response.read() == b"too many event streams\n"
            assert stream.do("session") == 1
            stream.end()
            assert leader.facts("on_close")[0][0] == "done"
        finally:
            leader.server.fetch("/threads?allowed=yes")
    assert "no thread can be started for the producer of an event stream" in leader.server.log()
    with leader.stream("/flask/led") as stream:
        assert stream.do("session") == 1
        stream.end()
