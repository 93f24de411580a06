"""Tickets: one stream each, for seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from ssesync_django import Ticket, issue_ticket, publish, revoke, subscribe, ticket_required


@ticket_required
def events(request: Any) -> HttpResponseBase:
    return subscribe(request, *request.ticket.channels, key=request.ticket.subject)


class Method(View):
    @ticket_required
    def get(self, request: Any, name: str) -> HttpResponseBase:
        return subscribe(request, name)


@method_decorator(ticket_required, name="dispatch")
class Decorated(View):
    def get(self, request: Any) -> HttpResponseBase:
        return subscribe(request, "a")


urlpatterns = [
    path("events", events),
    path("method/<name>", Method.as_view()),
    path("decorated", Decorated.as_view()),
]


@pytest.fixture(autouse=True)
def _a_broker_for_each_test() -> Iterator[None]:
    with override_settings(SSESYNC_BROKER="memory://", ROOT_URLCONF=__name__):
        yield


def status(client: Client, ticket: str, url: str = "/events") -> int:
    return client.get(f"{url}?ticket={quote(ticket)}").status_code


def test_a_ticket_opens_one_stream_of_its_channels_and_subject(client: Client) -> None:
    ticket = issue_ticket(User(pk=7), channels=["a", "b"])
    response = client.get(f"/events?ticket={ticket}")
    assert response.status_code == 200
    publish("b", "x")
    chunks = iter(response)
    assert [next(chunks), b"data: x" in next(chunks)] == [b":ok\n", True]
    revoke(User(pk=7))
    assert list(chunks) == []


def test_a_ticket_is_good_once(client: Client) -> None:
    ticket = issue_ticket("ada", channels=["a"])
    assert [status(client, ticket), status(client, ticket), status(client, ticket)] == [200, 401, 401]
    assert status(client, issue_ticket("ada", channels=["a"])) == 200


def test_of_many_requests_with_the_same_ticket_at_once_one_is_accepted() -> None:
    ticket = issue_ticket("ada", channels=["a"])

    def use(_: int) -> int:
        return events(RequestFactory().get("/events", {"ticket": ticket})).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(use, range(16))) == [200, *[401] * 15]


def test_asking_for_the_headers_does_not_use_it_up(client: Client) -> None:
    ticket = issue_ticket("ada", channels=["a"])
    assert client.head(f"/events?ticket={ticket}").status_code == 200
    assert client.head("/events?ticket=x").status_code == 401
    assert status(client, ticket) == 200


def test_an_expired_one_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket, longest = issue_ticket("ada", channels=["a"], seconds=5), issue_ticket("ada", channels=["a"], seconds=60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6)
    assert status(client, ticket) == 401
    monkeypatch.setattr(time, "time", lambda: now + 62)
    assert status(client, longest) == 401


def test_a_changed_one_and_one_of_another_salt_or_key_are_refused(client: Client) -> None:
    ticket = issue_ticket("ada", channels=["a"])
    other = signing.dumps(["n", time.time() + 30, "ada", ["a"]], salt="another")
    with override_settings(SECRET_KEY="another"):
        foreign = issue_ticket("ada", channels=["a"])
    # The last character of a signature may hold bits that nobody looks at.
    changed = [ticket[:place] + ("A" if ticket[place] != "A" else "B") + ticket[place + 1 :] for place in (0, 20, -5)]
    for bad in ("", "x", ":::", "é", "\x00", ticket * 50, other, foreign, *changed):
        assert status(client, bad) == 401
    assert client.get("/events").status_code == 401
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["for tests only"]):
        assert status(client, ticket) == 200


def test_methods_and_classes_are_guarded_too(client: Client) -> None:
    for url in ("/method/a", "/decorated"):
        assert status(client, "", url) == 401
        assert status(client, issue_ticket("ada"), url) == 200


def test_the_refusal_says_nothing_but_what_is_needed(client: Client) -> None:
    ticket = issue_ticket("ada", channels=["secret"], seconds=0.001)
    time.sleep(0.02)
    response = client.get(f"/events?ticket={ticket}")
    assert response.getvalue() == b"a ticket is needed\n"
    assert response["WWW-Authenticate"] == "ticket"


def test_no_log_line_of_ours_has_the_ticket(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ticket = issue_ticket("ada", channels=["a"])
    response = client.get(f"/events?ticket={ticket}")
    next(iter(response))
    response.event_stream.close()  # type: ignore[attr-defined]
    assert status(client, ticket) == 401
    lines = [record.getMessage() + str(record.__dict__) for record in caplog.records if record.name == "ssesync"]
    # Streams that other tests have dropped may be told of as well.
    assert any("stream=/events" in line for line in lines)
    assert any("a ticket was refused" in line for line in lines)
    assert not any(ticket in line or ticket[:20] in line for line in lines)


def test_what_can_not_be_a_ticket_is_refused_when_it_is_issued() -> None:
    with pytest.raises(TypeError, match="list of names"):
        issue_ticket("ada", channels="abc")
    with pytest.raises(TypeError, match="saved user"):
        issue_ticket(AnonymousUser())
    for seconds in (0, -1, 61, float("nan")):
        with pytest.raises(ValueError, match="up to 60 seconds"):
            issue_ticket("ada", seconds=seconds)
    with pytest.raises(ValueError, match="too long"):
        issue_ticket("ada", channels=[f"a channel of a long name {n}" for n in range(200)])


def test_a_request_has_its_tickets_subject_and_channels() -> None:
    seen: list[Ticket] = []

    @ticket_required
    def view(request: HttpRequest) -> HttpResponseBase:
        seen.append(request.ticket)  # type: ignore[attr-defined]
        return subscribe(request, "a")

    view(RequestFactory().get("/", {"ticket": issue_ticket(User(pk=7), channels=["a", "b"])}))
    assert seen == [Ticket("user 7", ("a", "b"))]


def test_while_the_broker_can_not_be_reached_a_ticket_opens_no_stream(client: Client, tmp_path: Any) -> None:
    with override_settings(SSESYNC_BROKER=f"sqlite:///{tmp_path}/missing/log"):
        assert status(client, issue_ticket("ada", channels=["a"])) == 503
