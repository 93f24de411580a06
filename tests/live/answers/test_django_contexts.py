"""A producer in Django has what belongs to its request, when its stream has left the server as before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest

from tests.apps.django_project.few.base import MOST
from tests.http_client import Response

from .conftest import requested
from .leading import Leader

Lead = Callable[[str], Leader]
ON_EACH = pytest.mark.parametrize("name", ["gthread", "sync", "werkzeug", "runserver"])
#: More than the database has connections.
MANY = 50


@ON_EACH
def test_the_request_its_session_and_what_the_view_has_set(lead: Lead, name: str) -> None:
    leader = lead(name)
    with leader.stream("/django/led", Accept_Language="de, en;q=0.5") as stream:
        assert stream.do("request") == ["GET", "/django/led", leader.key, "yes"]
        assert stream.do("session") == 1
        assert stream.do("messages") == ["a message"]
        assert stream.do("translation") == ["de", "Januar"]
        assert stream.do("timezone") == "JST"
        assert stream.do("reverse") == "/django/plain"
        stream.end()
    with leader.stream("/django/led", Accept_Language="en") as stream:
        assert stream.do("translation") == ["en", "January"]
        stream.end()


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_a_session_that_the_producer_saves_is_kept(lead: Lead, name: str) -> None:
    """Django's middleware has saved what the view has set, before the head went out."""
    leader = lead(name)
    for detached in (True, False):
        with leader.stream("/django/led", {"detach": detached}, detached=detached) as stream:
            cookies = "; ".join(
                value.partition(";")[0] for key, value in stream.response.headers if key == "set-cookie"
            )
            stream.do("save session")
            stream.end()
        with leader.server.connect() as wire:
            response = Response.read(wire.get("/django/session", Cookie=cookies))
            assert json.loads(response) == {"visits": 1, "late": "saved"}


@ON_EACH
def test_queries_in_and_out_of_transactions(lead: Lead, name: str) -> None:
    """The view's transaction, which is that of its request, is committed; the producer is in none but its own."""
    leader = lead(name)
    with leader.stream("/django/led") as stream:
        assert stream.do("in atomic") is False
        assert stream.do("rows") == 1
        assert stream.do("connections") == 0
        assert stream.do("atomic") == 2
        assert leader.server.fetch(f"/django/rows?of={leader.key}") == "2"
        assert stream.do("failing") == "LookupError: rolled back"
        assert stream.do("rows") == 2
        assert stream.do("connections") == 0
        stream.end()


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_a_producer_that_raises_before_its_first_event_has_the_view_rolled_back(lead: Lead, name: str) -> None:
    leader = lead(name)
    with leader.server.connect() as wire:
        assert wire.get(leader.target("/django/raising"), Connection="close").status == 500
    assert leader.server.fetch(f"/django/rows?of={leader.key}") == "0"


@ON_EACH
def test_signals_are_sent_once_and_resources_are_released_at_the_streams_end(lead: Lead, name: str) -> None:
    leader = lead(name)
    for detached in (True, False):
        leader.key += "-"
        with leader.stream("/django/led", {"detach": detached}, detached=detached) as stream:
            if detached:  # the server's response is over
                assert leader.facts("signals", 2) == ["started", "finished"]
                assert "order" not in json.loads(leader.server.fetch(f"/facts?of={leader.key}"))
            stream.end()
        order = leader.facts(count=3)
        assert sorted(order) == ["on_close", "resources", "the producer's end"]
        if detached:
            assert order.index("on_close") < order.index("resources")
        assert leader.facts("signals", 2) == ["started", "finished"]


@ON_EACH
@pytest.mark.parametrize(("size", "kind"), [(9_000, "InMemoryUploadedFile"), (600_000, "TemporaryUploadedFile")])
def test_a_form_and_its_file_are_read_late(lead: Lead, name: str, size: int, kind: str) -> None:
    body = (
        b'--limit\r\nContent-Disposition: form-data; name="name"\r\n\r\nsomebody\r\n--limit\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + size * b"x" + b"\r\n--limit--\r\n"
    )
    content = "multipart/form-data; boundary=limit"
    with lead(name).stream("/django/led", body=body, Content_Type=content) as stream:
        assert stream.do("form") == "somebody"
        assert stream.do("file") == [kind, size]
        stream.end()


def test_more_queries_than_connections_are_named_and_with_a_limit_none_fails(lead: Lead) -> None:
    leader = lead("gthread")
    for limit in (None, MOST):
        leader.server.fetch("/django/hold")
        options = {} if limit is None else {"max_producers": limit}
        with requested(leader.server, leader.target("/django/waits", options), MANY) as responses:
            served = [response for response in responses if response.status == 200]
            if limit is not None:
                assert [response.status for response in responses].count(503) == MANY - limit
            if limit is None:
                assert leader.server.logs("got no connection to its database, as all are in use: set")
                assert "set max_producers to the database's limit of connections" in leader.server.log()
            leader.server.fetch("/django/go")
            ends = []
            for response in served:
                with contextlib.suppress(EOFError, ConnectionResetError):
                    ends.append(response.read())
            assert ends.count(b":ok\ndata: 1\n\n") == MOST
