"""Channels in the Django skin, through Django's own test client. Real servers are in tests/channels_live."""

from __future__ import annotations

import contextlib
import datetime
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import connection, transaction
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory, TestCase, override_settings
from django.urls import path
from rest_framework.views import APIView

from ssesync import (
    BrokerUnavailable,
    ChannelClosed,
    ChannelError,
    Event,
    EventError,
    SettingsError,
    Subscription,
    streams,
)
from ssesync.server.refusal import ReconnectionTimes
from ssesync.wire import Decoder
from ssesync_django import ChannelView, get_broker, publish, revoke, subscribe


class Room(ChannelView):
    channels = ("room:{room}", "news")

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == "news" or self.kwargs["room"] in request.GET.get("rooms", "1")


class Public(ChannelView):
    channels = ("room:{room}",)
    public = True

    def on_connect(self, subscription: Subscription) -> list[Any]:
        return [{"channels": subscription.channels}, "state"]


class Forgotten(ChannelView):
    def get_channels(self, request: HttpRequest) -> list[str]:
        return [f"room:{self.kwargs['room']}"]


class Members(LoginRequiredMixin, ChannelView):
    raise_exception = True
    channels = ("members",)
    stream_options = {"retry": 5, "max_pending_events": 3, "patience": 0}  # noqa: RUF012


class Staff(PermissionRequiredMixin, ChannelView):
    permission_required = "auth.view_user"
    channels = ("staff",)


class Job(ChannelView):
    channels = ("job",)
    since = "start"
    until_type = ("end",)
    known = True


def function(request: HttpRequest) -> HttpResponseBase:
    return subscribe(
        request, "a", cors_origins=["https://app.example"], authorize=lambda request, channel: asked(request)
    )


def asked(request: HttpRequest) -> bool:
    if "missing" in request.GET:
        raise Http404
    if "denied" in request.GET:
        raise PermissionDenied
    return "no" not in request.GET


class API(APIView):
    def get(self, request: Any) -> HttpResponseBase:
        return subscribe(request, "a", authorize=lambda request, channel: request.query_params.get("ask") == "1")


urlpatterns = [
    path("rooms/<room>", Room.as_view()),
    path("public/<room>", Public.as_view()),
    path("forgotten/<room>", Forgotten.as_view()),
    path("members", Members.as_view()),
    path("staff", Staff.as_view()),
    path("function", function),
    path("job", Job.as_view()),
    path("api", API.as_view()),
]


@pytest.fixture(autouse=True)
def _a_broker_for_each_test() -> Iterator[None]:
    with override_settings(SSESYNC_BROKER="memory://", ROOT_URLCONF=__name__, SSESYNC={"KEEP_ALIVE": 0.05}):
        yield


class Undone(Exception):
    """Rolls a transaction back."""


class Opened:
    """A stream that has begun."""

    def __init__(self, response: Any) -> None:
        assert response.status_code == 200, response.getvalue()
        assert response["Content-Type"].startswith("text/event-stream")
        self.response = response
        self.chunks = iter(response)
        self.decoder = Decoder()
        self.events: list[Event] = []
        next(self.chunks)

    def next(self) -> Event:
        while not self.events:
            self.events = self.decoder.feed(next(self.chunks))
        return self.events.pop(0)

    def ends(self) -> bool:
        return all(not self.decoder.feed(chunk) for chunk in self.chunks)


@pytest.fixture
def opened(client: Client) -> Iterator[Callable[..., Opened]]:
    responses: list[Any] = []

    def get(url: str, last_event_id: str = "", **options: Any) -> Opened:
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        responses.append(client.get(url, headers=headers, **options))
        return Opened(responses[-1])

    yield get
    for response in responses:
        response.event_stream.close()


def request() -> HttpRequest:
    return RequestFactory().get("/")


# subscribing


def test_what_is_published_reaches_the_views_channels_and_no_others(opened: Callable[..., Opened]) -> None:
    stream = opened("/rooms/1")
    publish("room:2", "elsewhere")
    first = publish("room:1", {"at": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)}, type="note")
    publish("news", Event("b", retry=7))
    event = stream.next()
    assert (event.data, event.type, event.id) == ('{"at":"2026-01-02T00:00:00Z"}', "note", first)
    assert (stream.next().data, stream.decoder.retry) == ("b", 7)


def test_a_client_that_comes_back_first_gets_what_it_missed(opened: Callable[..., Opened]) -> None:
    first = publish("room:1", "seen")
    publish("room:1", "missed")
    publish("room:2", "of another room")
    publish("news", "missed too")
    stream = opened("/rooms/1", last_event_id=first)
    assert [stream.next().data, stream.next().data] == ["missed", "missed too"]
    assert opened("/rooms/1", last_event_id="foreign-1").next().type == "reset"


def test_a_page_that_was_made_before_it_subscribed_misses_nothing(opened: Callable[..., Opened]) -> None:
    position = get_broker().position()
    publish("news", "meanwhile")
    assert opened(f"/rooms/1?lastEventId={position}").next().data == "meanwhile"
    later = publish("news", "later")
    publish("news", "last")
    assert opened(f"/rooms/1?lastEventId={position}", last_event_id=later).next().data == "last"
    response = subscribe(request(), "news", last_event_id=position)
    assert Opened(response).next().data == "meanwhile"
    response.event_stream.close()


def test_events_that_a_stream_begins_with_come_before_all_else(opened: Callable[..., Opened]) -> None:
    before = publish("room:1", "before")
    publish("room:1", "missed")
    stream = opened("/public/1", last_event_id=before)
    publish("room:1", "live")
    events = [stream.next() for _ in range(4)]
    assert [event.data for event in events] == ['{"channels":["room:1"]}', "state", "missed", "live"]
    assert [event.id for event in events[:2]] == ["", ""]


def test_patterns_are_subscribed_to() -> None:
    response = subscribe(request(), patterns=["user:*"])
    stream = Opened(response)
    publish("user:7", "a")
    assert stream.next().data == "a"
    response.event_stream.close()


def test_head_is_answered_without_a_subscription(client: Client) -> None:
    for url, status in (("/rooms/1", 200), ("/rooms/2", 403), ("/forgotten/1", 500), ("/members", 403)):
        client.raise_request_exception = False
        response = client.head(url)
        assert (response.status_code, response.getvalue()) == (status, b"")
    assert len(get_broker().dispatcher) == 0


@pytest.mark.slow
def test_options_go_to_the_stream_and_to_the_policy(client: Client, db: None) -> None:
    client.force_login(User.objects.create(username="ada"))
    response = client.get("/members")
    chunks = iter(response)
    assert next(chunks) == b"retry: 5\n"
    for n in range(4):
        publish("members", str(n), on_commit=False)
    assert list(chunks) == []
    assert response.event_stream.reason == "overflow"


@pytest.mark.parametrize("option", ["kepalive", "overfow"])
def test_an_unknown_option_is_refused_and_leaves_no_subscription(option: str) -> None:
    with pytest.raises(SettingsError, match=option):
        subscribe(request(), "a", **{option: 1})
    assert len(get_broker().dispatcher) == 0


def test_the_projects_settings_bound_what_waits() -> None:
    with override_settings(SSESYNC={"MAX_PENDING_EVENTS": 2}):
        response = subscribe(request(), "a", patience=0)
        for n in range(3):
            publish("a", str(n))
        assert Opened(response).ends()
        assert response.event_stream.reason == "overflow"


def test_a_subscription_holds_no_database_connection(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User.objects.create(username="ada")
    closed: list[str] = []
    monkeypatch.setattr(connection, "close", lambda: closed.append("closed"))

    def may_read(request: HttpRequest, channel: str) -> bool:
        return User.objects.filter(pk=user.pk).exists()

    response = subscribe(request(), "a", authorize=may_read)
    assert closed == []
    next(iter(response))
    assert closed == ["closed"]
    response.event_stream.close()


# who may


@pytest.mark.parametrize("last_event_id", ["", "replay"])
def test_a_refused_channel_is_answered_403_before_any_byte_also_for_replay(client: Client, last_event_id: str) -> None:
    if last_event_id:
        last_event_id = publish("room:2", "secret") or ""
        publish("room:2", "secret")
    response = client.get("/rooms/2", headers={"last-event-id": last_event_id})
    assert response.status_code == 403
    assert response.getvalue() == b"not for you\n"
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert len(get_broker().dispatcher) == 0


@pytest.mark.parametrize(("query", "status"), [("no", 403), ("denied", 403), ("missing", 404)])
def test_the_check_may_answer_or_raise(client: Client, query: str, status: int) -> None:
    assert client.get(f"/function?{query}").status_code == status
    assert len(get_broker().dispatcher) == 0


def test_pages_of_other_origins_may_read_why_they_were_refused(client: Client) -> None:
    response = client.get("/function?no", headers={"origin": "https://app.example"})
    assert response.status_code == 403
    assert response["Access-Control-Allow-Origin"] == "https://app.example"
    assert (
        client.get("/function?no", headers={"origin": "https://other.example"}).get("Access-Control-Allow-Origin")
        is None
    )


def test_authorize_is_called_for_every_channel_and_pattern() -> None:
    names: list[str] = []

    def note(request: HttpRequest, name: str) -> bool:
        names.append(name)
        return name != "c*"

    assert subscribe(request(), "a", "b", patterns=["c*"], authorize=note).status_code == 403
    assert names == ["a", "b", "c*"]


def test_a_right_that_is_taken_back_during_the_check_ends_the_stream() -> None:
    def slow(request: HttpRequest, channel: str) -> bool:
        revoke("ada")
        return True

    response = subscribe(request(), "a", authorize=slow, key="ada")
    publish("a", "secret")
    assert b"secret" not in b"".join(response)
    assert response.event_stream.reason == "revoked"


def test_rest_frameworks_requests_are_understood(client: Client, opened: Callable[..., Opened]) -> None:
    assert client.get("/api").status_code == 403
    stream = opened("/api?ask=1")
    publish("a", "x")
    assert stream.next().data == "x"


@pytest.mark.parametrize("room", ["a*", "%00", "x" * 250])
def test_a_name_that_no_channel_can_have_is_not_found_where_the_client_chose_it(client: Client, room: str) -> None:
    assert client.get(f"/rooms/{room}?rooms={room}").status_code == 404
    with pytest.raises(ChannelError):
        subscribe(request(), "a*")
    with pytest.raises(ChannelError):
        ChannelView.as_view(channels=["a*"])(request())


def test_a_view_whose_url_names_channels_requires_authorize(client: Client, opened: Callable[..., Opened]) -> None:
    opened("/public/1")
    with pytest.raises(ImproperlyConfigured, match="Forgotten by its URL: check them in"):
        client.get("/forgotten/1")
    with pytest.raises(ImproperlyConfigured, match="authorize"):
        ChannelView.as_view(channels=["room:{room}"])
    ChannelView.as_view(channels=["room:{room}"], public=True)
    ChannelView.as_view(channels=["room:{room}"], authorize=lambda request, channel: False)


def test_the_login_and_permission_mixins_work(client: Client, db: None, opened: Callable[..., Opened]) -> None:
    assert client.get("/members").status_code == 403
    assert client.get("/staff").status_code == 302
    user = User.objects.create(username="ada")
    client.force_login(user)
    opened("/members")
    assert client.get("/staff").status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    opened("/staff")


def test_methods_other_than_get_are_refused(client: Client) -> None:
    assert client.post("/public/1").status_code == 405
    assert client.options("/public/1")["Allow"] == "GET, HEAD, OPTIONS"


# taking a right back


def test_a_users_streams_are_ended(client: Client, db: None, opened: Callable[..., Opened]) -> None:
    user = User.objects.create(username="ada")
    other = opened("/public/1")
    client.force_login(user)
    streams = [opened("/public/1"), opened("/members")]
    revoke(user, "members")
    assert streams[1].ends()
    revoke(user)
    assert streams[0].ends()
    assert get_broker().subscriber_count("room:1") == 1
    publish("room:1", "x", on_commit=False)
    assert [other.next().data for _ in range(3)][-1] == "x"


def test_a_key_of_ones_own_goes_before_the_user() -> None:
    given = request()
    given.user = User(pk=5)
    response = subscribe(given, "a", key="session 1")
    revoke(given.user)
    assert not response.event_stream.closed
    revoke("session 1")
    assert Opened(response).ends()


def test_the_key_counts_for_the_limit_of_streams() -> None:
    given = request()
    given.user = User(pk=5)
    options = {"max_streams_per_key": 1}
    first = subscribe(given, "a", **options)
    assert subscribe(given, "a", **options).status_code == 503
    other = subscribe(given, "a", key="other", **options)
    assert other.status_code == 200
    first.event_stream.close()
    other.event_stream.close()


@pytest.mark.parametrize("who", [AnonymousUser(), User(), None, 7])
def test_a_key_is_text_or_a_saved_user(who: Any) -> None:
    with pytest.raises(TypeError, match="text or a saved user"):
        revoke(who)


# publishing


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_it_is_published_when_the_outermost_block_is_committed(self) -> None:
        subscription = get_broker().subscribe("a")
        with transaction.atomic():
            with transaction.atomic():
                assert publish("a", "x") is None
            assert subscription.get(0) is None
        event = subscription.get(20)
        assert event is not None
        assert event.data == "x"

    def test_a_rollback_publishes_nothing(self) -> None:
        subscription = get_broker().subscribe("a")
        with contextlib.suppress(Undone), transaction.atomic():
            publish("a", "never")
            raise Undone
        with transaction.atomic():
            publish("a", "kept")
            with contextlib.suppress(Undone), transaction.atomic():
                publish("a", "never")
                raise Undone
        event = subscription.get(20)
        assert event is not None
        assert (event.data, subscription.get(0)) == ("kept", None)

    def test_it_can_be_published_at_once(self) -> None:
        subscription = get_broker().subscribe("a")
        with transaction.atomic():
            assert publish("a", "x", on_commit=False)
            assert subscription.get(20) is not None

    def test_it_is_what_it_was_when_it_was_given(self) -> None:
        subscription = get_broker().subscribe("a")
        data = {"n": 1}
        with transaction.atomic():
            publish("a", data)
            data["n"] = 2
        event = subscription.get(20)
        assert event is not None
        assert event.json() == {"n": 1}

    @pytest.mark.parametrize(
        ("channel", "event", "error"),
        [("a*", "x", ChannelError), ("a", Event("x", id="1"), EventError), ("a", object(), TypeError)],
    )
    def test_a_mistake_is_found_before_the_commit(self, channel: str, event: Any, error: type[Exception]) -> None:
        with pytest.raises(error), transaction.atomic():
            publish(channel, event)

    def test_a_broker_that_fails_after_the_commit_is_logged_and_the_other_callbacks_run(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        called: list[str] = []
        with override_settings(SSESYNC_BROKER=f"sqlite:///{tmp_path}/missing/log"):
            with transaction.atomic():
                User.objects.create(username="ada")
                publish("a", "x")
                transaction.on_commit(lambda: called.append("called"))
            with pytest.raises(BrokerUnavailable):
                publish("a", "x")
        assert User.objects.filter(username="ada").exists()
        assert called == ["called"]
        # Streams that other tests have dropped may be told of as well.
        (record,) = [each for each in caplog.records if (each.name, each.levelno) == ("ssesync", logging.ERROR)]
        assert record.exc_info is not None
        assert "'a'" in record.getMessage()

    def test_transactions_that_are_managed_by_hand_are_refused(self) -> None:
        transaction.set_autocommit(False)
        try:
            with pytest.raises(transaction.TransactionManagementError):
                publish("a", "x")
            assert publish("a", "x", on_commit=False)
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)


class InATestCase(TestCase):
    """A test's own transaction is never committed; Django's helper calls what waits for that."""

    def test_what_waits_for_the_commit_is_published_by_the_helper(self) -> None:
        subscription = get_broker().subscribe("a")
        with self.captureOnCommitCallbacks(execute=True):
            publish("a", "x")
        event = subscription.get(20)
        assert event is not None
        assert event.data == "x"


def test_publishing_opens_no_database_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "connect", lambda: pytest.fail("connected"))
    assert publish("a", "x")


# the broker


def test_the_broker_is_one_for_all_threads_and_another_when_the_setting_changes(tmp_path: Path) -> None:
    brokers: set[Any] = set()
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait(90)
        brokers.add(get_broker())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert brokers == {get_broker()}
    subscription = get_broker().subscribe("a")
    with override_settings(SSESYNC_BROKER=f"sqlite:///{tmp_path}/log"):
        assert subscription.reason == "shutdown"
        assert get_broker() not in brokers
    assert get_broker() not in brokers


def test_a_broker_that_can_not_be_reached_is_answered_503(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(SSESYNC_BROKER=f"sqlite:///{tmp_path}/missing/log"):
        response = subscribe(request(), "a")
    assert response.status_code == 503
    assert 2 <= int(response["Retry-After"]) <= 10
    assert b"missing" not in response.getvalue()
    assert "could not subscribe" in caplog.text


@pytest.mark.parametrize(("options", "status"), [({}, 200), ({"refusal": "503"}, 503)])
def test_a_browser_comes_back_by_itself_while_the_broker_can_not_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], status: int
) -> None:
    monkeypatch.setattr(
        streams._admission, "_reconnection_times", ReconnectionTimes()
    )  # what a browser is told shows in later openings
    given = request()
    given.META["HTTP_ACCEPT"] = "text/event-stream"
    refused = streams.snapshot()["refused"]
    with override_settings(SSESYNC_BROKER=f"sqlite:///{tmp_path}/missing/log"):
        response = subscribe(given, "a", **options)
    assert response.status_code == status
    body = response.getvalue()
    if status == 200:
        assert response["Content-Type"] == "text/event-stream; charset=utf-8"
        assert re.fullmatch(rb"retry: [0-9]{4,6}\n", body)
    else:
        assert (int(response["Retry-After"]) >= 3, body) == (True, b"try again\n")
    assert streams.snapshot()["refused"] == refused + 1


def test_memory_in_several_processes_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    given = request()
    assert given.META["wsgi.multiprocess"]
    subscribe(given, "a").event_stream.close()
    assert "several" not in caplog.text
    given.META["wsgi.input"] = io.BytesIO()
    for _ in range(2):
        subscribe(given, "a").event_stream.close()
    assert caplog.text.count("this server runs several") == 1


def test_a_view_of_a_channel_that_ends_answers_404_before_it_and_204_after_it(client: Client) -> None:
    assert client.get("/job").status_code == 404
    publish("job", "first")
    last = get_broker().publish("job", "last", type="end")
    publish("job", "behind it")
    response = client.get("/job")
    events = Decoder().feed(b"".join(response.streaming_content))  # type: ignore[attr-defined]
    assert [event.data for event in events] == ["first", "last"]
    assert client.get("/job", headers={"Last-Event-ID": last}).status_code == 204


def test_a_final_event_closes_its_channel() -> None:
    with override_settings(SSESYNC_BROKER="memory://?max_events=7"):
        publish("job", {"state": "done"}, final=True, on_commit=False)
        with pytest.raises(ChannelClosed):
            publish("job", "more", on_commit=False)
