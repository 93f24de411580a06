"""Channels in Flask, through its test client: publish, subscribe, who may, and tickets."""

from __future__ import annotations

import decimal
import logging
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import flask
import pytest
from flask import Flask, abort, request, session

from ssesync import (
    Broker,
    BrokerUnavailable,
    ChannelClosed,
    ChannelError,
    CloseReason,
    Event,
    EventError,
    SettingsError,
    Subscription,
    open_broker,
    streams,
)
from ssesync.channels.envelope import jsonrpc_result
from ssesync.server.refusal import ReconnectionTimes
from ssesync.wire import Decoder
from ssesync_flask import SSE, EventStreamResponse, Ticket

ROOT = Path(__file__).resolve().parents[3]


def make_app(name: str = "app", **config: Any) -> Flask:
    app = Flask(name)
    app.config.update(SECRET_KEY="for tests only", **config)
    return app


@pytest.fixture
def app() -> Flask:
    return make_app()


@pytest.fixture
def sse(app: Flask) -> Iterator[SSE]:
    sse = SSE(app)
    yield sse
    sse.broker.close()


@pytest.fixture(autouse=True)
def streams_end_with_their_test() -> Iterator[None]:
    yield
    while Stream.opened:
        Stream.opened.pop().close()


class Stream:
    """A stream that the test client was given, read as far as there is something."""

    opened: ClassVar[list[Stream]] = []

    def __init__(self, app: Flask, path: str, **options: Any) -> None:
        self.response = app.test_client().get(path, **options)
        self.opened.append(self)
        assert self.response.status_code == 200, self.response.text
        self._chunks = self.response.iter_encoded()
        self._decoder = Decoder()
        self.opening = next(self._chunks)
        self._decoder.feed(self.opening)

    def events(self) -> list[Event]:
        """What is there now; waits for at least one."""
        while not (events := self._decoder.feed(next(self._chunks))):
            pass
        return events

    def data(self) -> list[Any]:
        return [event.data for event in self.events()]

    def ends(self) -> bool:
        return not any(self._decoder.feed(chunk) for chunk in self._chunks)

    def close(self) -> None:
        self.response.close()


def room_view(app: Flask, sse: SSE, **options: Any) -> None:
    @app.get("/rooms/<room>")
    def room_events(room: str) -> Any:
        return sse.subscribe(f"room:{room}", **options)


# publish and subscribe


def test_a_published_event_reaches_subscribers_with_its_id(app: Flask, sse: SSE) -> None:
    room_view(app, sse)
    stream = Stream(app, "/rooms/1")
    assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    first = sse.publish("room:1", Event("hi", type="chat"))
    sse.publish("room:2", "not for this one")
    second = sse.publish("room:1", {"n": 1}, type="count")
    assert stream.events() == [Event("hi", type="chat", id=first), Event('{"n":1}', type="count", id=second)]
    stream.close()
    assert sse.broker.subscriber_count("room:1") == 0


def test_publishing_needs_no_context_and_any_thread_will_do(app: Flask, sse: SSE) -> None:
    room_view(app, sse)
    stream = Stream(app, "/rooms/1")
    assert not flask.has_app_context()
    thread = threading.Thread(target=sse.publish, args=("room:1", "from a thread"))
    thread.start()
    thread.join()
    assert stream.data() == ["from a thread"]
    stream.close()


def test_json_goes_through_the_applications_provider(app: Flask, sse: SSE) -> None:
    class Provider(flask.json.provider.DefaultJSONProvider):
        default = staticmethod(lambda value: f"<{type(value).__name__}>")

    app.json = Provider(app)
    room_view(app, sse, on_connect=lambda subscription: [{"first": object()}])
    stream = Stream(app, "/rooms/1")
    assert stream.data() == ['{"first":"<object>"}']
    sse.publish("room:1", {"a": decimal.Decimal(1)})
    assert stream.data() == ['{"a":"<Decimal>"}']
    with pytest.raises(ValueError):
        sse.publish("room:1", {"a": float("nan")})
    stream.close()


def test_a_client_that_comes_back_gets_what_it_missed(app: Flask, sse: SSE) -> None:
    room_view(app, sse)
    ids = [sse.publish("room:1", str(n)) for n in range(4)]
    by_header = Stream(app, "/rooms/1", headers={"Last-Event-ID": ids[1]})
    by_query = Stream(app, f"/rooms/1?lastEventId={ids[2]}")
    assert (by_header.data(), by_query.data()) == (["2", "3"], ["3"])
    by_header.close()
    by_query.close()


def test_a_view_may_set_where_a_new_client_begins(app: Flask, sse: SSE) -> None:
    begin = sse.broker.position()
    ids = [sse.publish("room:1", str(n)) for n in range(3)]
    room_view(app, sse, last_event_id=begin)
    stream, back = Stream(app, "/rooms/1"), Stream(app, "/rooms/1", headers={"Last-Event-ID": ids[1]})
    assert (stream.data(), back.data()) == (["0", "1", "2"], ["2"])
    stream.close()
    back.close()


def test_an_id_from_another_life_gets_one_reset(app: Flask, sse: SSE) -> None:
    room_view(app, sse, reset_event="start-over")
    stream = Stream(app, "/rooms/1", headers={"Last-Event-ID": "0abc-17"})
    (reset,) = stream.events()
    assert (reset.type, reset.json()) == ("start-over", {"reason": "unknown"})
    stream.close()


def test_several_channels_and_patterns_come_through_one_stream(app: Flask, sse: SSE) -> None:
    @app.get("/all")
    def view() -> Any:
        return sse.subscribe("news", "user:7", patterns=["room:*"])

    stream = Stream(app, "/all")
    for channel in ("room:1", "user:7", "user:8", "news"):
        sse.publish(channel, channel)
    assert stream.data() == ["room:1", "user:7", "news"]
    stream.close()


def test_options_go_to_whom_they_are_for(app: Flask, sse: SSE) -> None:
    room_view(
        app, sse, retry=77, headers={"X-A": "1"}, overflow="drop_oldest", max_pending_events=2, dropped_event="gap"
    )  # fmt: skip
    stream = Stream(app, "/rooms/1")
    assert stream.opening == b"retry: 77\n"
    assert stream.response.headers["X-A"] == "1"
    for n in range(5):
        sse.publish("room:1", str(n))
    assert [(event.type, event.data) for event in stream.events()] == [
        ("gap", '{"count":3}'),
        ("message", "3"),
        ("message", "4"),
    ]
    stream.close()


def test_the_applications_bounds_hold_for_subscriptions_too() -> None:
    app = make_app(SSESYNC={"max_pending_events": 2})
    sse = SSE(app)
    room_view(app, sse, overflow="drop_oldest")
    stream = Stream(app, "/rooms/1")
    for n in range(5):
        sse.publish("room:1", str(n))
    assert stream.data()[0] == '{"count":3}'
    stream.close()


@pytest.mark.parametrize("options", [{"keepalive": 1}, {"overflow": "ignore"}, {"max_streams": 0}])
def test_an_option_that_can_t_work_is_an_error_and_leaves_nobody_subscribed(
    app: Flask, sse: SSE, options: dict[str, Any]
) -> None:
    room_view(app, sse, **options)
    app.testing = True
    with pytest.raises(SettingsError):
        app.test_client().get("/rooms/1")
    assert sse.broker.subscriber_count("room:1") == 0


def test_head_and_a_finished_client_subscribe_to_nothing(app: Flask, sse: SSE) -> None:
    called: list[Any] = []
    finished = "x".__eq__
    room_view(app, sse, finished=finished, on_connect=called.append, on_close=lambda *_: called.append(1))
    assert app.test_client().head("/rooms/1").status_code == 200
    assert app.test_client().get("/rooms/1", headers={"Last-Event-ID": "x"}).status_code == 204
    assert (sse.broker.subscriber_count("room:1"), called) == (0, [])


def test_a_ready_made_event_can_t_bring_its_own_id(sse: SSE) -> None:
    with pytest.raises(EventError):
        sse.publish("a", Event("x", id="1"))


# on_connect and on_close


def test_a_stream_begins_with_on_connect_within_the_request_and_ends_with_on_close(app: Flask, sse: SSE) -> None:
    calls: list[Any] = []

    def arrived(subscription: Subscription) -> list[Event]:
        calls.append((request.path, subscription.channels))
        sse.publish("room:1", "somebody came")
        return [Event("you", type="hello")]

    def left(reason: CloseReason, stats: Any) -> None:
        calls.append(reason)
        sse.publish("room:1", "somebody left")

    room_view(app, sse, on_connect=arrived, on_close=left)
    stream = Stream(app, "/rooms/1")
    first = stream.events()
    while len(first) < 2:
        first += stream.events()
    assert [(event.type, event.data) for event in first] == [("hello", "you"), ("message", "somebody came")]
    stream.close()
    assert calls == [("/rooms/1", ("room:1",)), "client_gone"]


@pytest.mark.slow
def test_what_on_connect_raises_is_the_answer(app: Flask, sse: SSE) -> None:
    room_view(app, sse, on_connect=lambda subscription: abort(409))
    assert app.test_client().get("/rooms/1").status_code == 409
    assert sse.broker.subscriber_count("room:1") == 0


# who may


def test_authorize_is_called_with_the_request_for_each_channel_and_pattern(app: Flask, sse: SSE) -> None:
    authorized: list[Any] = []

    def may(request: flask.Request, channel: str) -> bool:
        authorized.append((type(request), request.args["q"], channel))
        return True

    @app.get("/")
    def view() -> Any:
        return sse.subscribe("a", "b", patterns=["c:*"], authorize=may)

    Stream(app, "/?q=5").close()
    assert authorized == [(flask.Request, "5", "a"), (flask.Request, "5", "b"), (flask.Request, "5", "c:*")]


def no(request: flask.Request, channel: str) -> Any:
    return False


def forgot_to_answer(request: flask.Request, channel: str) -> Any:
    pass


def aborts(request: flask.Request, channel: str) -> Any:
    abort(403)


@pytest.mark.parametrize("authorize", [no, forgot_to_answer, aborts])
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_refused_client_gets_403_and_no_event(
    app: Flask, sse: SSE, authorize: Callable[..., Any], comes_back: bool
) -> None:
    before = sse.publish("room:1", "before")
    sse.publish("room:1", "secret")
    room_view(app, sse, authorize=authorize)
    headers = {"Last-Event-ID": before} if comes_back else {}
    answer = app.test_client().get("/rooms/1", headers=headers)
    assert answer.status_code == 403
    assert "secret" not in answer.text
    assert sse.broker.subscriber_count("room:1") == 0


def test_one_refused_channel_refuses_all_and_the_applications_handler_answers(app: Flask, sse: SSE) -> None:
    @app.errorhandler(403)
    def handle(error: Any) -> Any:
        return "go away", 403

    @app.get("/")
    def view() -> Any:
        return sse.subscribe("a", "b", authorize=lambda request, channel: channel == "a")

    assert app.test_client().get("/").text == "go away"


def test_an_authorize_function_may_give_an_answer_of_its_own(app: Flask, sse: SSE) -> None:
    room_view(app, sse, authorize=lambda request, channel: session.get("user") or abort(401))
    assert app.test_client().get("/rooms/1").status_code == 401


@pytest.mark.parametrize("room", ["*", "a*", "%00", "x" * 200, "%0A"])
def test_a_name_that_a_client_made_up_and_no_channel_can_have_is_404(app: Flask, sse: SSE, room: str) -> None:
    room_view(app, sse, authorize=lambda request, channel: True)
    assert app.test_client().get(f"/rooms/{room}").status_code == 404


def test_without_authorize_such_a_name_is_the_applications_error(app: Flask, sse: SSE) -> None:
    with app.test_request_context(), pytest.raises(ChannelError):
        sse.subscribe("a\n")


def test_no_parameter_of_a_request_names_a_channel(app: Flask, sse: SSE) -> None:
    room_view(app, sse)
    stream = Stream(app, "/rooms/1?channel=secret&channels=secret&patterns=*&key=x")
    sse.publish("secret", "no")
    sse.publish("room:1", "yes")
    assert stream.data() == ["yes"]
    stream.close()


def test_a_right_that_is_taken_back_ends_the_streams_of_that_key_and_no_others(app: Flask, sse: SSE) -> None:
    reasons: list[str] = []

    @app.get("/<user>/<channel>")
    def view(user: str, channel: str) -> Any:
        return sse.subscribe(channel, key=user, on_close=lambda reason, stats: reasons.append(reason))

    ada, also_ada, grace = Stream(app, "/ada/a"), Stream(app, "/ada/b"), Stream(app, "/grace/a")
    sse.revoke("ada", "a")
    assert ada.ends()
    assert reasons == ["revoked"]
    sse.publish("b", "still")
    assert also_ada.data() == ["still"]
    sse.revoke("ada")
    assert also_ada.ends()
    sse.publish("a", "hers")
    assert grace.data() == ["hers"]
    grace.close()


def test_a_right_that_is_taken_back_while_it_is_checked_ends_the_stream(app: Flask, sse: SSE) -> None:
    def may(request: flask.Request, channel: str) -> bool:
        sse.revoke("ada")  # after the check said yes, from another request
        return True

    room_view(app, sse, authorize=may, key="ada")
    assert Stream(app, "/rooms/1").ends()


def test_the_key_is_the_one_that_streams_are_limited_by(app: Flask, sse: SSE) -> None:
    @app.get("/<user>")
    def view(user: str) -> Any:
        return sse.subscribe("a", key=user, max_streams_per_key=1)

    first = Stream(app, "/ada")
    assert app.test_client().get("/ada").status_code == 503
    assert sse.broker.subscriber_count("a") == 1
    Stream(app, "/grace").close()
    first.close()


# other origins

HERE, FRIEND, STRANGER = "http://localhost", "https://friend.example", "https://stranger.example"


@pytest.mark.parametrize(("origin", "status"), [(HERE, 200), (FRIEND, 200), (STRANGER, 403), (None, 200)])
def test_same_origin_only_holds_for_channels(app: Flask, sse: SSE, origin: str | None, status: int) -> None:
    room_view(app, sse, same_origin_only=True, cors_origins=[FRIEND])
    answer = app.test_client().get("/rooms/1", headers={"Origin": origin} if origin else {})
    assert answer.status_code == status
    answer.close()
    assert sse.broker.subscriber_count("room:1") == 0


@pytest.mark.parametrize("path", ["/rooms/yes", "/rooms/no", "/ticket"])
def test_refusals_carry_the_cors_headers_of_the_stream(path: str) -> None:
    app = make_app(SSESYNC={"cors_origins": [FRIEND], "cors_credentials": True})
    sse = SSE(app)
    room_view(app, sse, authorize=lambda request, channel: channel == "room:yes")
    app.add_url_rule("/ticket", view_func=lambda: sse.subscribe(*sse.redeem_ticket().channels))
    answer = app.test_client().get(path, headers={"Origin": FRIEND})
    assert answer.headers.getlist("Access-Control-Allow-Origin") == [FRIEND]
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Vary"] == "Origin"
    answer.close()
    answer = app.test_client().get(path, headers={"Origin": STRANGER})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"
    answer.close()


# brokers and applications


def test_a_broker_is_named_by_the_configuration_before_the_extension(tmp_path: Path) -> None:
    configured, given = tmp_path / "configured.db", tmp_path / "given.db"
    app = make_app(SSESYNC_BROKER=f"sqlite:///{configured}")
    with SSE(app, broker=f"sqlite:///{given}").broker as broker:
        broker.publish("a", "x")
    assert (configured.exists(), given.exists()) == (True, False)


def test_a_broker_of_ones_own_is_used_as_it_is(app: Flask) -> None:
    with open_broker("memory://") as broker:
        assert SSE(app, broker=broker).broker is broker
        assert SSE(make_app(SSESYNC_BROKER=broker)).broker is broker


@pytest.mark.parametrize("url", ["postgres://x", "memory://?max_event=5", "sqlite://"])
def test_a_mistake_in_the_url_is_found_when_the_application_is_bound(url: str) -> None:
    with pytest.raises(SettingsError):
        SSE(make_app(SSESYNC_BROKER=url))


def test_the_brokers_url_is_no_setting_of_streams() -> None:
    with pytest.raises(SettingsError, match="unknown option 'broker'"):
        SSE(make_app(SSESYNC={"broker": "memory://"}))


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    before = threading.active_count()
    sse = SSE(make_app(), broker=f"sqlite:///{tmp_path}/a.db")
    assert isinstance(sse.broker, Broker)
    assert (list(tmp_path.iterdir()), threading.active_count()) == ([], before)


def test_each_of_several_applications_has_a_broker_of_its_own() -> None:
    sse = SSE()
    apps = [make_app(name) for name in ("one", "two")]
    for app in apps:
        sse.init_app(app)
        room_view(app, sse)
    opened = [Stream(app, "/rooms/1") for app in apps]
    for app in apps:
        with app.app_context():
            sse.publish("room:1", app.name)
    assert [stream.data() for stream in opened] == [["one"], ["two"]]
    with pytest.raises(RuntimeError, match="app_context"):
        sse.publish("room:1", "which?")
    for stream in opened:
        stream.close()


def test_an_extension_without_an_application_says_so() -> None:
    with pytest.raises(RuntimeError, match="init_app"):
        SSE().publish("a", "x")


def test_the_context_of_another_application_changes_nothing(app: Flask, sse: SSE) -> None:
    with make_app("other").app_context():
        assert sse.publish("a", "x")
    assert sse.broker.snapshot()["published"] == 1


def test_a_broker_that_can_t_be_reached_is_503_with_a_time_to_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    sse = SSE(app, broker=f"sqlite:///{tmp_path}/missing/a.db")
    room_view(app, sse)
    answer = app.test_client().get("/rooms/1")
    assert answer.status_code == 503
    assert 2 <= int(answer.headers["Retry-After"]) <= 10
    assert "no such directory" in caplog.text
    with pytest.raises(BrokerUnavailable):
        sse.publish("a", "x")


def test_a_browser_comes_back_by_itself_while_the_broker_can_t_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        streams._admission, "_reconnection_times", ReconnectionTimes()
    )  # what a browser is told shows in later openings
    browser = {"Accept": "text/event-stream"}
    handled = []
    for refusal, status in (("auto", 200), ("503", 503)):
        app = make_app(SSESYNC={"refusal": refusal})
        app.register_error_handler(503, lambda error: handled.append(error) or error)  # type: ignore[func-returns-value]
        sse = SSE(app, broker=f"sqlite:///{tmp_path}/missing/a.db")
        room_view(app, sse)
        app.add_url_rule("/ticket", view_func=lambda sse=sse: sse.redeem_ticket().subject)
        with app.app_context():
            ticket = sse.issue_ticket("ada")
        refused = streams.snapshot()["refused"]
        for path in ("/rooms/1", f"/ticket?ticket={ticket}"):
            answer = app.test_client().get(path, headers=browser)
            assert answer.status_code == status
            if status == 200:
                assert answer.mimetype == "text/event-stream"
                assert re.fullmatch(rb"retry: [0-9]{4,6}\n", answer.data)
            else:
                assert int(answer.headers["Retry-After"]) >= 3
        assert streams.snapshot()["refused"] == refused + 2
    assert len(handled) == 2


def test_memory_with_several_processes_is_warned_of_once(
    app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    room_view(app, sse)
    for _ in range(2):
        app.test_client().get("/rooms/1", environ_overrides={"wsgi.multiprocess": True}).close()
    assert [record.levelname for record in caplog.records if "sqlite:///" in record.getMessage()] == ["WARNING"]


def test_a_response_of_subscribe_can_be_added_to(app: Flask, sse: SSE) -> None:
    @app.get("/")
    def view() -> Any:
        response = sse.subscribe("a")
        assert isinstance(response, EventStreamResponse)
        response.set_cookie("seen", "yes")
        return response

    stream = Stream(app, "/")
    assert "seen=yes" in stream.response.headers["Set-Cookie"]
    stream.close()


# tickets


def ticket_view(app: Flask, sse: SSE) -> None:
    @app.get("/stream")
    def stream() -> Any:
        ticket = sse.redeem_ticket()
        return sse.subscribe(*ticket.channels, key=ticket.subject)


def test_a_ticket_opens_one_stream_of_its_channels_for_its_subject(app: Flask, sse: SSE) -> None:
    ticket_view(app, sse)
    ticket = sse.issue_ticket("ada", channels=["a", "b"])
    assert app.test_client().head(f"/stream?ticket={ticket}").status_code == 200  # it opens none
    stream = Stream(app, f"/stream?ticket={ticket}")
    sse.publish("b", "x")
    assert stream.data() == ["x"]
    again = app.test_client().get(f"/stream?ticket={ticket}")
    assert (again.status_code, again.headers["WWW-Authenticate"]) == (401, "Ticket")
    sse.revoke("ada")
    assert stream.ends()


def test_of_many_that_come_with_one_ticket_at_once_one_is_let_in(app: Flask, sse: SSE) -> None:
    ticket = sse.issue_ticket("ada")
    results: list[Any] = []
    start = threading.Barrier(8)

    def redeem() -> None:
        with app.test_request_context(f"/?ticket={ticket}"):
            start.wait(90)
            try:
                results.append(sse.redeem_ticket())
            except Exception as error:
                results.append(type(error).__name__)

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(map(str, results)) == sorted([str(Ticket("ada", ())), *["Unauthorized"] * 7])


@pytest.mark.slow
def test_a_ticket_that_was_used_in_another_process_is_used(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    app = make_app(SSESYNC_BROKER=url)
    sse = SSE(app)
    ticket = sse.issue_ticket("ada")
    code = f"""
from flask import Flask
from ssesync_flask import SSE
app = Flask("app")
app.config.update(SECRET_KEY="for tests only", SSESYNC_BROKER={url!r})
with app.test_request_context("/?ticket={ticket}"):
    print(SSE(app).redeem_ticket().subject)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.stdout == "ada\n", done.stderr
    ticket_view(app, sse)
    assert app.test_client().get(f"/stream?ticket={ticket}").status_code == 401
    sse.broker.close()


def test_a_ticket_that_is_forged_missing_or_another_applications_is_refused(app: Flask, sse: SSE) -> None:
    ticket_view(app, sse)
    ticket = sse.issue_ticket("ada", channels=["a"])
    other = make_app("other")
    other.config["SECRET_KEY"] = "another"
    theirs = SSE(other).issue_ticket("ada", channels=["a"])
    session_cookie = flask.sessions.SecureCookieSessionInterface().get_signing_serializer(app)
    assert session_cookie is not None
    for text in ("", ticket[:-1], "x" + ticket, ticket.swapcase(), theirs, "x" * 5000, session_cookie.dumps([1])):
        assert app.test_client().get("/stream", query_string={"ticket": text}).status_code == 401
    assert app.test_client().get("/stream").status_code == 401
    stream = Stream(app, f"/stream?ticket={ticket}")  # nobody has used it up
    stream.close()


def test_a_ticket_expires(app: Flask, sse: SSE, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket_view(app, sse)
    tickets = [sse.issue_ticket("ada", channels=["a"], seconds=seconds) for seconds in (20, 60)]
    import time

    now = time.time()
    monkeypatch.setattr("ssesync.channels.tickets.time.time", lambda: now + 30)
    statuses = []
    for ticket in tickets:
        answer = app.test_client().get(f"/stream?ticket={ticket}")
        statuses.append(answer.status_code)
        answer.close()
    assert statuses == [401, 200]


def test_a_key_that_was_replaced_is_honoured_for_as_long_as_the_configuration_says(app: Flask, sse: SSE) -> None:
    ticket_view(app, sse)
    tickets = [sse.issue_ticket("ada", channels=["a"]) for _ in range(2)]
    app.config.update(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["for tests only"])
    Stream(app, f"/stream?ticket={tickets[0]}").close()
    app.config.update(SECRET_KEY_FALLBACKS=[])
    assert app.test_client().get(f"/stream?ticket={tickets[1]}").status_code == 401


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seconds": 61}, ValueError),
        ({"seconds": 0}, ValueError),
        ({"channels": "a"}, TypeError),
        ({"channels": [str(uuid.uuid4()) for _ in range(200)]}, ValueError),
    ],
)
def test_a_ticket_that_is_no_good_is_not_issued(sse: SSE, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        sse.issue_ticket("ada", **arguments)


def test_tickets_take_a_secret_key(app: Flask, sse: SSE) -> None:
    app.config["SECRET_KEY"] = None
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        sse.issue_ticket("ada")


def test_a_subject_is_text(sse: SSE) -> None:
    with pytest.raises(TypeError):
        sse.issue_ticket(7)  # type: ignore[arg-type]


def test_no_log_line_of_ours_has_a_ticket_in_it(app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ssesync")
    ticket_view(app, sse)
    ticket = sse.issue_ticket("ada", channels=["a"])
    stream = Stream(app, f"/stream?ticket={ticket}")
    names = {each["name"] for each in streams.snapshot()["streams"]}
    assert "/stream" in names
    assert not [name for name in names if "ticket" in name]
    stream.close()
    for text in (ticket, ticket[:-1]):
        assert app.test_client().get(f"/stream?ticket={text}").status_code == 401
    ours = [record.getMessage() for record in caplog.records if record.name == "ssesync"]
    # Streams that other tests have dropped may be told of as well.
    assert len([line for line in ours if "/stream" in line or "a ticket was refused" in line]) == 3
    assert not [line for line in ours if ticket[:20] in line or ticket[-20:] in line]


# channels that are closed


def test_a_closed_channel_ends_the_stream_and_the_client_that_has_all_of_it_is_answered_204(
    app: Flask, sse: SSE
) -> None:
    room_view(app, sse, since="start", known=True)
    client = app.test_client()
    assert client.get("/rooms/1").status_code == 404
    sse.publish("room:1", "first")
    stream = Stream(app, "/rooms/1")
    last = sse.broker.publish("room:1", "last", final=True)
    assert stream.data() + stream.data() == ["first", "last"]
    assert stream.ends()
    returned = client.get("/rooms/1", headers={"Last-Event-ID": last})
    assert (returned.status_code, returned.data) == (204, b"")
    assert sse.broker.subscriber_count("room:1") == 0
    assert Stream(app, "/rooms/1").data() == ["first", "last"]


def test_an_envelope_is_put_around_each_event_of_this_client_and_not_around_the_librarys_own(
    app: Flask, sse: SSE
) -> None:
    room_view(app, sse, envelope=jsonrpc_result(5), until_type="end", on_connect=lambda subscription: [{"state": 1}])
    stream = Stream(app, "/rooms/1", headers={"Last-Event-ID": "unknown-1"})
    sse.publish("room:1", {"n": 1})
    sse.publish("room:1", {"n": 2}, type="end")
    events = [event for _ in range(2) for event in stream.events()]
    assert [event.json() for event in events if event.type != "reset"] == [
        {"jsonrpc": "2.0", "id": 5, "result": result} for result in ({"state": 1}, {"n": 1}, {"n": 2})
    ]
    assert [event.json() for event in events if event.type == "reset"] == [{"reason": "unknown"}]
    assert stream.ends()


def test_a_final_event_closes_its_channel(sse: SSE) -> None:
    sse.publish("job", {"percent": 50})
    sse.publish("job", {"state": "done"}, final=True)
    with pytest.raises(ChannelClosed):
        sse.publish("job", "more")
