"""open_stream and live_stream on Django views: the client's session, the test's transaction, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, TestCase, override_settings
from django.urls import path
from django.views.decorators.csrf import csrf_protect

from ssesync import CloseReason, Event, StreamStats, Writer
from ssesync.testing import live_stream, open_stream
from ssesync_django import event_stream, event_writer

ended: list[tuple[CloseReason, StreamStats]] = []


@event_stream(on_close=lambda *how: ended.append(how))
def endless(request: HttpRequest) -> Iterator[Event]:
    number = 0
    while True:
        number += 1
        yield Event(str(number), id=number)


@event_writer(on_close=lambda *how: ended.append(how))
def waits(request: HttpRequest, w: Writer) -> None:
    w.write_event("waiting")
    w.cancelled.wait(60)


@event_stream
def users(request: HttpRequest) -> Iterator[str]:
    yield from User.objects.order_by("pk").values_list("username", flat=True)
    yield "that was all"


@event_stream
def whoami(request: HttpRequest) -> Iterator[Any]:
    yield {"user": str(request.user), "id": request.headers.get("Last-Event-ID"), "q": request.GET.get("q")}


@csrf_protect
@event_stream
def posted(request: HttpRequest) -> Iterator[str]:
    yield f"{request.method} {request.content_type} {request.body.decode()}"


def refused(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"why": "busy"}, status=503, headers={"Retry-After": "7"})


def fails(request: HttpRequest) -> HttpResponse:
    raise LookupError("of the view")


def sets_cookie(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("no stream")
    response.set_cookie("seen", "yes")
    return response


urlpatterns = [
    path("endless", endless),
    path("waits", waits),
    path("users", users),
    path("whoami", whoami),
    path("posted", posted),
    path("refused", refused),
    path("fails", fails),
    path("cookie", sets_cookie),
]


@pytest.fixture(autouse=True)
def urls() -> Iterator[None]:
    ended.clear()
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.mark.django_db
@pytest.mark.parametrize("of", [Client, WSGIHandler])
def test_an_endless_view_is_read_and_left(of: Any) -> None:
    with open_stream(of(), "/endless") as stream:
        assert stream.status == 200
        assert [event.data for event in stream.take(3)] == ["1", "2", "3"]
        assert stream.last_event_id == "3"
        stream.disconnect()
        assert stream.reason == "client_gone"
    assert [reason for reason, _ in ended] == ["client_gone"]


@pytest.mark.django_db
def test_an_imperative_view_that_never_returns_is_served_while_the_test_runs(client: Client) -> None:
    with open_stream(client, "/waits") as stream:
        assert stream.next().data == "waiting"
        stream.disconnect()
        stream.wait_finished()
    assert [reason for reason, _ in ended] == ["client_gone"]


class TestTransactions(TestCase):
    def test_the_view_and_its_producer_see_the_transaction_of_the_test(self) -> None:
        User.objects.create(username="ada")
        for kind in (open_stream, live_stream):
            with kind(self.client, "/users") as stream:
                assert [event.data for event in stream.rest()] == ["ada", "that was all"]
                stream.wait_finished()
        assert User.objects.count() == 1
        assert connection.in_atomic_block

    def test_the_connection_is_the_tests_own_again_when_the_stream_is_over(self) -> None:
        with open_stream(self.client, "/endless") as stream:
            assert connection.allow_thread_sharing
            stream.disconnect()
            stream.wait_finished()
        assert not connection.allow_thread_sharing


@pytest.mark.django_db
def test_the_clients_login_defaults_and_query_count(client: Client) -> None:
    client.force_login(User.objects.create(username="ada"))
    with open_stream(client, "/whoami?q=x", last_event_id="ä5") as stream:
        # Django shows header values as Latin-1.
        assert stream.next().json() == {"user": "ada", "id": "ä5".encode().decode("latin-1"), "q": "x"}


@pytest.mark.django_db
def test_a_body_is_posted_past_the_csrf_check_unless_the_client_enforces_it(client: Client) -> None:
    with open_stream(client, "/posted", method="POST", json={"a": 1}) as stream:
        assert stream.next().data == 'POST application/json {"a": 1}'
    with open_stream(client, "/posted", method="POST", data="b", content_type="text/plain") as stream:
        assert stream.next().data == "POST text/plain b"
    with open_stream(Client(enforce_csrf_checks=True), "/posted", method="POST", json={}) as stream:
        assert stream.status == 403


@pytest.mark.django_db
def test_a_cookie_that_is_set_is_the_clients(client: Client) -> None:
    with open_stream(client, "/cookie") as stream:
        assert stream.text == "no stream"
    assert client.cookies["seen"].value == "yes"


@pytest.mark.django_db
@pytest.mark.parametrize("opened", [open_stream, live_stream])
def test_an_answer_that_is_no_stream_shows_its_status_headers_and_body(opened: Any) -> None:
    with opened(Client(), "/refused") as stream:
        assert (stream.status, stream.headers["retry-after"], stream.text) == (503, "7", '{"why": "busy"}')


@pytest.mark.django_db
def test_what_a_view_raises_is_raised_in_the_test_as_under_the_client(client: Client) -> None:
    with pytest.raises(LookupError, match="of the view"):
        open_stream(client, "/fails")
    with open_stream(Client(raise_request_exception=False), "/fails") as stream:
        assert stream.status == 500


def test_the_asynchronous_client_is_refused() -> None:
    with pytest.raises(TypeError, match="got AsyncClient"):
        open_stream(AsyncClient(), "/")
