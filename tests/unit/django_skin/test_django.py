"""The Django skin through Django's own test client. Real servers are in tests/live."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.db import connection
from django.test import Client, RequestFactory, TestCase, override_settings

from ssesync import Event, SettingsError
from ssesync.wire import Decoder
from ssesync_django import EventStreamResponse
from ssesync_django.apps import app_settings, current_environ

from . import urls


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    urls.ran.clear()


def body(response: Any) -> bytes:
    assert response.streaming
    return b"".join(response)


def events(response: Any) -> list[Event]:
    return Decoder().feed(body(response))


def test_a_function_view_is_streamed_with_its_arguments(client: Client) -> None:
    response = client.get("/count/3")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response["Cache-Control"] == "no-cache, no-transform"
    assert response["X-Accel-Buffering"] == "no"
    assert not response.has_header("Content-Length")
    assert not response.has_header("ETag")
    assert [event.id for event in events(response)] == ["0", "1", "2"]


def test_an_imperative_view_gets_a_writer_after_the_request(client: Client) -> None:
    response = client.post("/job/x", headers={"last-event-id": "5"})
    assert [(event.type, event.data, event.id) for event in events(response)] == [("POST", "x", "5"), ("done", "", "5")]


def test_methods_of_class_based_views_are_streamed(client: Client) -> None:
    assert body(client.get("/class/x")) == b"retry: 5\ndata: GET x\n\n"
    assert body(client.post("/class/y")) == b"retry: 6\ndata: POST y\n\n"
    assert events(client.get("/decorated"))[0].data == "decorated"


def test_a_view_that_returns_an_iterable_is_streamed_and_a_response_passes(client: Client) -> None:
    assert events(client.get("/returns/x"))[0].data == "x"
    assert client.get("/returns/login").status_code == 302


@pytest.mark.slow
def test_a_response_can_be_made_in_a_view_of_ones_own_with_cookies_and_session(client: Client, db: None) -> None:
    response = client.get("/own/response")
    assert body(response) == b"retry: 5\ndata: a\n\n"
    assert response["X-A"] == "1"
    assert response.cookies["seen"].value == "yes"
    assert response.cookies["sessionid"].value


def test_a_stream_of_ones_own_is_served_and_takes_its_options_itself(client: Client) -> None:
    assert body(client.get("/own/stream")) == b"retry: 5\ndata: a\n\n"
    with pytest.raises(TypeError, match="options"):
        client.get("/own/stream?options=1")


@pytest.mark.parametrize(("what", "status"), [("missing", 404), ("forbidden", 403)])
def test_an_exception_before_the_first_event_gives_its_status(client: Client, what: str, status: int) -> None:
    assert client.get(f"/raises/{what}").status_code == status


def test_what_is_raised_after_the_first_event_ends_the_stream_with_an_error_event(client: Client) -> None:
    content = body(client.get("/raises/later"))
    assert [event.type for event in Decoder().feed(content)] == ["message", "error"]
    assert b"secret" not in content


def test_head_runs_no_producer(client: Client) -> None:
    response = client.head("/count/3")
    assert (response.status_code, body(response), urls.ran) == (200, b"", [])
    assert response["Content-Type"].startswith("text/event-stream")


@pytest.mark.slow
def test_a_finished_client_is_answered_204_without_a_body_or_its_headers(client: Client) -> None:
    response = client.get("/finished", headers={"last-event-id": "9"})
    assert (response.status_code, body(response), urls.ran) == (204, b"", [])
    assert not response.has_header("Content-Type")
    assert client.get("/finished").status_code == 200


def test_json_goes_through_djangos_encoder_and_lazy_text_is_text(client: Client) -> None:
    data = [event.data for event in events(client.get("/values"))]
    assert data == ['{"at":"2026-01-02T00:00:00Z"}', '"1.5"', '"00000000-0000-0000-0000-000000000000"', "text"]


def test_nan_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="JSON"):
        client.get("/nan")


@pytest.mark.slow
def test_gzip_and_conditional_get_middleware_leave_the_stream_alone(client: Client) -> None:
    response = client.get("/count/500", headers={"accept-encoding": "gzip"})
    assert response["Content-Encoding"] == "identity"
    chunks = iter(response)
    assert next(chunks) == b":ok\n"
    assert next(chunks).startswith(b"id: 0\n")


class InATestCase(TestCase):
    """What Django's TestCase wraps in a transaction is visible to the producer, as it runs in the test's thread."""

    def test_a_generator_view_sees_the_tests_transaction_and_writes_into_it(self) -> None:
        User.objects.create(username="made by the test")
        first, second = (event.json() for event in events(self.client.get("/database")))
        assert first == {"users": 1, "thread": threading.get_ident()}
        assert second == {"users": 2}
        assert User.objects.count() == 2

    def test_the_tests_own_transaction_is_nothing_to_be_warned_of(self) -> None:
        with self.assertNoLogs("ssesync", "WARNING"):
            body(self.client.get("/database"))

    def test_an_imperative_view_does_too(self) -> None:
        User.objects.create(username="made by the test")
        (event,) = events(self.client.get("/database/writer"))
        assert event.json() == {"users": 2, "thread": threading.get_ident()}
        assert connection.in_atomic_block


def test_with_pytest_djangos_db_fixture_the_producer_sees_the_tests_transaction(client: Client, db: None) -> None:
    User.objects.create(username="made by the test")
    assert events(client.get("/database"))[0].json()["users"] == 1


def test_a_request_factory_request_runs_the_view_in_the_tests_own_thread(db: None) -> None:
    response = urls.database(RequestFactory().get("/database"))
    assert events(response)[0].json()["thread"] == threading.get_ident()


def test_a_producer_in_a_thread_has_what_django_keeps_for_the_requests_thread(client: Client) -> None:
    expected = {"language": "de", "zone": "Asia/Kolkata", "url": "/mounted/language"}
    assert events(client.get("/language"))[0].json() == expected


@pytest.mark.django_db(transaction=True)
def test_connections_are_let_go_before_the_first_byte_unless_an_atomic_block_holds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(connection, "close", lambda: closed.append("closed"))
    stream = EventStreamResponse(["a"], request=RequestFactory().get("/"), release_db="start")
    assert closed == []
    next(iter(stream))
    assert closed == ["closed"]
    stream.close()
    closed.clear()
    from django.db import transaction

    with transaction.atomic():
        body(EventStreamResponse(["a"], request=RequestFactory().get("/")))
        assert closed == []


def test_drf_answers_an_event_stream_instead_of_406(client: Client) -> None:
    response = client.get("/api?q=5", headers={"accept": "text/event-stream"})
    assert response.status_code == 200
    assert events(response)[0].data == "5"


def test_drf_answers_errors_in_json_that_says_so(client: Client) -> None:
    response = client.get("/api?forbidden=1", headers={"accept": "text/event-stream"})
    assert response.status_code == 403
    assert response["Content-Type"] == "application/json"
    assert "detail" in response.json()


# settings


def test_settings_are_read_in_djangos_capitals(client: Client) -> None:
    with override_settings(SSESYNC={"RETRY": 77}):
        assert body(client.get("/count/0")) == b"retry: 77\n"
    assert body(client.get("/count/0")) == b":ok\n"


def test_settings_are_read_once() -> None:
    assert app_settings() is app_settings()


@pytest.mark.parametrize(
    ("value", "message"), [({"KEEPALIVE": 1}, "did you mean 'keep_alive'"), ({"RETRY": -1}, "retry"), ([], "dict")]
)
def test_the_system_check_finds_bad_settings(value: Any, message: str) -> None:
    with override_settings(SSESYNC=value):
        (error,) = [check for check in run_checks() if check.id == "ssesync.E001"]
        assert message in error.msg
    assert not [check for check in run_checks() if check.id == "ssesync.E001"]


def test_a_view_with_bad_settings_says_what_is_wrong(client: Client) -> None:
    with override_settings(SSESYNC={"RETRY": -1}), pytest.raises(SettingsError, match="retry"):
        client.get("/count/1")


def test_the_environ_of_the_request_is_known_to_a_response_that_is_not_given_it(client: Client, db: None) -> None:
    response = client.head("/own/response")
    assert body(response) == b""
    environ = current_environ()
    assert environ is not None
    assert environ["PATH_INFO"] == "/own/response"


def test_a_view_that_is_called_without_a_request_says_so() -> None:
    with pytest.raises(TypeError, match="request first"):
        urls.job("no request", "x")
