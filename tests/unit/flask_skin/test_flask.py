"""The Flask skin through Flask's own test client. Real servers are in tests/live."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Flask, abort, g, redirect, request, session

from ssesync import Event, EventStream, Settings, SettingsError, Writer
from ssesync.wire import Decoder
from ssesync_flask import SSE, EventStreamResponse, event_stream, event_writer


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests only"
    app.testing = False
    return app


def events(response: Any) -> list[Event]:
    return Decoder().feed(response.data)


def test_a_generator_view_is_streamed_with_its_route_arguments(app: Flask) -> None:
    @app.get("/count/<int:n>")
    @event_stream
    def count(n: int) -> Iterator[Any]:
        for number in range(n):
            yield Event("x", id=number)

    response = app.test_client().get("/count/3")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache, no-transform"
    assert "Content-Length" not in response.headers
    assert [event.id for event in events(response)] == ["0", "1", "2"]


def test_an_imperative_view_gets_a_writer_before_the_route_arguments(app: Flask) -> None:
    @app.post("/job/<job_id>")
    @event_writer
    def job(w: Writer, job_id: str) -> None:
        w.write_event(job_id, type="progress", id=w.last_event_id)
        w.finish()

    response = app.test_client().post("/job/x", headers={"Last-Event-ID": "5"})
    assert [(event.type, event.data, event.id) for event in events(response)] == [
        ("progress", "x", "5"),
        ("done", "", "5"),
    ]


def test_a_decorator_takes_the_streams_options(app: Flask) -> None:
    closed: list[str] = []

    @app.get("/a")
    @event_stream(retry=123, headers={"X-A": "1"}, on_close=lambda reason, stats: closed.append(reason))
    def generator() -> Iterator[str]:
        yield "x"

    @app.get("/b")
    @event_writer(retry=456, headers={"X-A": "2"})
    def imperative(w: Writer) -> None:
        w.write("x")

    client = app.test_client()
    first, second = client.get("/a"), client.get("/b")
    assert first.data == b"retry: 123\ndata: x\n\n"
    assert second.data == b"retry: 456\ndata: x\n\n"
    assert (first.headers["X-A"], second.headers["X-A"]) == ("1", "2")
    assert closed == ["done"]


def test_a_view_that_returns_an_iterable_is_streamed_and_a_response_passes(app: Flask) -> None:
    @app.get("/<what>")
    @event_stream
    def view(what: str) -> Any:
        if what == "login":
            return redirect("/elsewhere")
        return (item for item in [what])

    client = app.test_client()
    assert events(client.get("/x"))[0].data == "x"
    assert client.get("/login").status_code == 302


def test_a_response_can_be_made_in_a_view_of_ones_own(app: Flask) -> None:
    @app.get("/")
    def view() -> flask.Response:
        response = EventStreamResponse(["a"], headers={"X-A": "1"}, retry=5)
        response.set_cookie("seen", "yes")
        return response

    response = app.test_client().get("/")
    assert response.data == b"retry: 5\ndata: a\n\n"
    assert "seen=yes" in response.headers["Set-Cookie"]
    assert response.headers["X-A"] == "1"


@pytest.mark.slow
def test_a_stream_of_ones_own_is_served_and_takes_its_options_itself(app: Flask) -> None:
    with app.test_request_context():
        assert EventStreamResponse(EventStream(["a"], retry=5)).get_wsgi_response(request.environ)[1] == "200 OK"
        with pytest.raises(TypeError, match="options"):
            EventStreamResponse(EventStream(["a"]), retry=5)


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_abort_before_the_first_event_gives_its_status(app: Flask, status: int) -> None:
    @app.get("/generator")
    @event_stream
    def generator() -> Iterator[str]:
        abort(status)
        yield "x"

    @app.get("/writer")
    @event_writer
    def imperative(w: Writer) -> None:
        abort(status)

    client = app.test_client()
    assert client.get("/generator").status_code == status
    assert client.get("/writer").status_code == status


def test_the_applications_error_handler_answers_what_is_raised_before_the_first_event(app: Flask) -> None:
    @app.errorhandler(LookupError)
    def handle(error: LookupError) -> tuple[str, int]:
        return "handled", 418

    @app.get("/")
    @event_stream
    def view() -> Iterator[str]:
        raise LookupError
        yield

    assert app.test_client().get("/").status_code == 418


def test_what_is_raised_after_the_first_event_ends_the_stream_with_an_error_event(app: Flask) -> None:
    @app.get("/")
    @event_stream
    def view() -> Iterator[str]:
        yield "x"
        raise ValueError("secret")

    response = app.test_client().get("/")
    assert [event.type for event in events(response)] == ["message", "error"]
    assert b"secret" not in response.data


def test_head_runs_no_producer(app: Flask) -> None:
    ran: list[int] = []

    @app.get("/")
    @event_stream
    def view() -> Iterator[str]:
        ran.append(1)
        yield "x"

    response = app.test_client().head("/")
    assert (response.status_code, response.data, ran) == (200, b"", [])
    assert response.headers["Content-Type"].startswith("text/event-stream")


@pytest.mark.slow
def test_a_finished_client_is_answered_204(app: Flask) -> None:
    @app.get("/")
    @event_stream(finished=lambda last_event_id: last_event_id == "9")
    def view() -> Iterator[str]:
        yield "x"

    client = app.test_client()
    response = client.get("/", headers={"Last-Event-ID": "9"})
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    assert client.get("/").status_code == 200


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        (decimal.Decimal("1.5"), '"1.5"'),
        (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        (datetime.date(2026, 1, 2), '"Fri, 02 Jan 2026 00:00:00 GMT"'),
        (Point(3), '{"x":3}'),
    ],
)
def test_json_goes_through_the_applications_provider(app: Flask, value: Any, data: str) -> None:
    @app.get("/")
    @event_stream
    def view() -> Iterator[Any]:
        yield value

    assert events(app.test_client().get("/"))[0].data == data


def test_nan_is_refused_although_flask_lets_it_pass(app: Flask) -> None:
    @app.get("/")
    @event_stream
    def view() -> Iterator[Any]:
        yield {"a": float("nan")}

    assert app.test_client().get("/").status_code == 500


def test_a_provider_of_ones_own_is_used(app: Flask) -> None:
    class Provider(flask.json.provider.JSONProvider):
        def dumps(self, obj: Any, **kwargs: Any) -> str:
            return f"<{obj}>"

        def loads(self, s: str | bytes, **kwargs: Any) -> Any:
            raise NotImplementedError

    app.json = Provider(app)

    @app.get("/")
    @event_stream
    def view() -> Iterator[Any]:
        yield [1]

    assert events(app.test_client().get("/"))[0].data == "<[1]>"


# contexts


def make_context_app(app: Flask, torn_down: list[int]) -> None:
    @app.before_request
    def sign_in() -> None:
        g.user = "ada"

    @app.teardown_appcontext
    def tear_down(error: BaseException | None) -> None:
        torn_down.append(threading.get_ident())

    @app.get("/")
    @event_stream
    def view() -> Iterator[Any]:
        yield {
            "app": flask.current_app.name,
            "user": g.user,
            "path": request.path,
            "argument": request.args["q"],
            "session": session.get("a"),
            "url": flask.url_for("view"),
        }


def test_the_contexts_are_there_in_the_producer(app: Flask) -> None:
    make_context_app(app, [])
    client = app.test_client()
    with client.session_transaction() as transaction:
        transaction["a"] = 1
    (event,) = events(client.get("/?q=5"))
    expected = {"app": app.name, "user": "ada", "path": "/", "argument": "5", "session": 1, "url": "/"}
    assert event.json() == expected


def test_flasks_own_wrapper_for_generators_is_replaced(app: Flask) -> None:
    """It would push the view's own contexts on the producer's thread, while the view still has them."""
    torn_down: list[int] = []
    make_context_app(app, torn_down)

    @app.get("/wrapped/<how>")
    def wrapped(how: str) -> Any:
        @flask.stream_with_context
        def generate() -> Iterator[str]:
            yield request.path

        if how == "view":
            return event_stream(generate)()
        return EventStreamResponse(generate(), threaded=how == "thread")

    for how in ("view", "thread", "inline"):
        response = app.test_client().get(f"/wrapped/{how}")
        assert [event.data for event in events(response)] == [f"/wrapped/{how}"]
        assert not flask.has_request_context()


def test_the_producers_own_context_is_torn_down_on_its_thread(app: Flask) -> None:
    torn_down: list[int] = []
    make_context_app(app, torn_down)
    app.test_client().get("/?q=5").get_data()
    assert torn_down == [threading.get_ident()] * 2
    assert not flask.has_app_context()


def test_a_producer_in_a_thread_has_the_contexts_and_pops_them(app: Flask) -> None:
    torn_down: list[int] = []
    make_context_app(app, torn_down)
    app.config["SSESYNC"] = {"threaded": True}
    ran_on: list[int] = []
    gone = threading.Event()

    @app.get("/endless")
    @event_stream(threaded=True)
    def endless() -> Iterator[str]:
        ran_on.append(threading.get_ident())
        try:
            while True:
                yield request.path + g.user
        finally:
            assert flask.current_app.name == app.name
            gone.set()

    response = app.test_client().get("/endless")
    chunks = response.iter_encoded()
    assert next(chunks) == b":ok\n"
    assert b"data: /endlessada\n\n" in next(chunks)
    response.close()
    assert gone.wait(90)
    for thread in threading.enumerate():
        if thread.ident in ran_on:
            thread.join(90)
    assert torn_down == [threading.get_ident(), *ran_on]
    assert ran_on != [threading.get_ident()]
    assert not flask.has_app_context()
    assert not flask.has_request_context()


def test_through_the_test_client_the_producer_runs_in_the_tests_own_thread(app: Flask) -> None:
    @app.get("/generator")
    @event_stream
    def generator() -> Iterator[Any]:
        yield threading.get_ident()

    @app.get("/writer")
    @event_writer
    def imperative(w: Writer) -> None:
        w.write(threading.get_ident())

    client = app.test_client()
    assert events(client.get("/generator"))[0].json() == threading.get_ident()
    assert events(client.get("/writer"))[0].json() == threading.get_ident()


def test_call_on_close_and_after_this_request_work(app: Flask) -> None:
    called: list[str] = []

    @app.get("/")
    def view() -> flask.Response:
        @flask.after_this_request
        def after(response: flask.Response) -> flask.Response:
            response.headers["X-After"] = "1"
            return response

        response = EventStreamResponse(["x"])
        response.call_on_close(lambda: called.append("closed"))
        return response

    response = app.test_client().get("/")
    assert response.headers["X-After"] == "1"
    response.get_data()
    response.close()
    assert called == ["closed"]


# the extension


def test_the_extension_reads_the_applications_settings(app: Flask) -> None:
    app.config["SSESYNC"] = {"retry": 50}
    sse = SSE(app, padding=3)

    @app.get("/")
    @event_stream
    def view() -> Iterator[str]:
        yield "x"

    assert app.test_client().get("/").data == b":   \nretry: 50\ndata: x\n\n"
    with app.app_context():
        assert sse.settings == Settings(retry=50, padding=3)


def test_one_extension_serves_several_applications() -> None:
    sse = SSE()
    settings = []
    for retry in (1, 2):
        app = Flask(f"app{retry}")
        app.config["SSESYNC"] = {"retry": retry}
        sse.init_app(app)
        with app.app_context():
            settings.append(sse.settings.retry)
    assert settings == [1, 2]


def test_bad_settings_are_found_when_the_application_is_bound(app: Flask) -> None:
    app.config["SSESYNC"] = {"keepalive": 1}
    with pytest.raises(SettingsError, match="keep_alive"):
        SSE(app)
    with pytest.raises(SettingsError, match="did you mean"):
        SSE(padings=1)


def test_settings_are_read_without_the_extension_too(app: Flask) -> None:
    app.config["SSESYNC"] = {"RETRY": 7}

    @app.get("/")
    @event_stream
    def view() -> Iterator[str]:
        yield "x"

    assert app.test_client().get("/").data.startswith(b"retry: 7\n")


def test_a_decorated_view_keeps_its_name_and_doc() -> None:
    @event_stream
    def ticks() -> Iterator[str]:
        """Tick."""
        yield "x"

    @event_writer
    def job(w: Writer) -> None:
        """Work."""

    assert (ticks.__name__, ticks.__doc__) == ("ticks", "Tick.")
    assert (job.__name__, job.__doc__) == ("job", "Work.")
