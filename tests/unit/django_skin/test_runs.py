"""Runs in the Django skin, through Django's own test client: who may start, follow and stop them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, JsonResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils import translation
from django.views.decorators.http import require_POST

from ssesync import Run, RunConflict, RunRefused
from ssesync.wire import Decoder
from ssesync_django import EventStreamResponse, follow_run, get_broker, run, start_run, stop_run

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]
begun: list[str] = []
may_end = threading.Event()


def words(name: str) -> Iterator[Any]:
    begun.append(name)
    yield {"language": translation.get_language()}
    if name != "quick":
        may_end.wait(90)
    yield "last"


@require_POST
def start(request: HttpRequest, name: str) -> JsonResponse:
    with translation.override("de"):
        started = start_run(request, name, words, name, subject=request.GET.get("subject"))
    return JsonResponse({"state": started.state})


@require_POST
def stream(request: HttpRequest, name: str) -> EventStreamResponse:
    with translation.override("de"):
        fingerprint = request.GET.get("fingerprint", "")
        return run(request, name, words, name, subject="anna", fingerprint=fingerprint, retain=60)


def follow(request: HttpRequest, name: str) -> EventStreamResponse:
    return follow_run(request, name, subject=request.GET.get("subject"))


def shared(request: HttpRequest, name: str) -> EventStreamResponse:
    def may_follow(request: HttpRequest, run: Run) -> bool:
        return run.subject == "anna" and "friend" in request.GET

    return follow_run(request, name, authorize=may_follow)


@require_POST
def stop(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse({"stopped": stop_run(request, name, subject=request.GET.get("subject"))})


urlpatterns = [
    path("runs/<name>", start),
    path("runs/<name>/stream", stream),
    path("runs/<name>/events", follow),
    path("shared/<name>", shared),
    path("runs/<name>/stop", stop),
]


@pytest.fixture(autouse=True)
def _own_broker() -> Iterator[None]:
    begun.clear()
    may_end.clear()
    with override_settings(SSESYNC_BROKER="memory://"):
        yield
        may_end.set()


def events_of(response: Any) -> list[tuple[str | None, str | None]]:
    assert response.status_code == 200, response.content
    return [(event.type, event.data) for event in Decoder().feed(b"".join(response.streaming_content))]


ALL = [("message", '{"language":"de"}'), ("message", "last"), ("end", '{"state":"done","events":2}')]


def test_a_run_is_started_and_followed_by_one_request(client: Client) -> None:
    assert events_of(client.post("/runs/quick/stream")) == ALL
    assert events_of(client.post("/runs/quick/stream")) == ALL
    assert events_of(client.get("/runs/quick/events?subject=anna")) == ALL
    assert begun == ["quick"]


def test_a_client_that_has_the_final_event_is_answered_204(client: Client) -> None:
    ids = [event.id for event in Decoder().feed(b"".join(client.post("/runs/quick/stream").streaming_content))]
    assert client.get("/runs/quick/events?subject=anna", headers={"Last-Event-ID": str(ids[-1])}).status_code == 204


def test_a_request_with_a_last_event_id_starts_nothing(client: Client) -> None:
    assert client.post("/runs/quick/stream", headers={"Last-Event-ID": "abcd1234-7"}).status_code == 404
    assert not begun


def test_a_run_is_the_logged_in_users_by_default(client: Client) -> None:
    client.force_login(User.objects.create_user("anna"))
    client.post("/runs/quick")
    assert events_of(client.get("/runs/quick/events")) == ALL
    assert client.post("/runs/quick/stop").json() == {"stopped": False}
    client.force_login(User.objects.create_user("otto"))
    assert client.get("/runs/quick/events").status_code == 404
    assert client.post("/runs/quick/stop").status_code == 404
    assert client.post("/runs/quick").status_code == 404


def test_without_a_user_the_subject_must_be_given(client: Client) -> None:
    assert client.post("/runs/quick").status_code == 403
    assert client.get("/runs/quick/events").status_code == 403
    request = RequestFactory().get("/")
    with pytest.raises(PermissionDenied, match="subject= is not given"):
        run(request, "quick", words, "quick")
    assert not begun


def test_a_start_with_another_fingerprint_is_a_conflict(client: Client) -> None:
    assert events_of(client.post("/runs/quick/stream?fingerprint=a")) == ALL
    assert client.post("/runs/quick/stream?fingerprint=b").status_code == 409
    with pytest.raises(RunConflict):
        start_run(RequestFactory().get("/"), "quick", words, "quick", subject="anna", fingerprint="b")


def test_a_function_of_the_request_and_the_run_decides_who_may_follow(client: Client) -> None:
    client.post("/runs/quick?subject=anna")
    assert client.get("/shared/quick").status_code == 404
    assert events_of(client.get("/shared/quick?friend=1")) == ALL


def test_a_process_with_no_room_for_producers_answers_503(client: Client) -> None:
    client.post("/runs/long?subject=anna")
    with override_settings(SSESYNC={"max_producers": 1}):
        response = client.post("/runs/other/stream")
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        with pytest.raises(RunRefused):
            start_run(RequestFactory().get("/"), "other", words, "other", subject="anna")


def test_stopping_ends_the_followers_streams(client: Client) -> None:
    client.post("/runs/long?subject=anna")
    assert client.post("/runs/long/stop?subject=anna").json() == {"stopped": True}
    assert events_of(client.get("/runs/long/events?subject=anna"))[-1][0] == "end"
    assert get_broker().get_run("long", subject="anna").state == "stopped"
