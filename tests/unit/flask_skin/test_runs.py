"""Runs in Flask, through its test client: who may start, follow and stop them, and what is answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Flask, request

from ssesync import Run, open_broker
from ssesync.channels.envelope import jsonrpc_result
from ssesync.wire import Decoder
from ssesync_flask import SSE, EventStreamResponse


class Producers:
    """What the application's producers did."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()

    def words(self, name: str) -> Iterator[Any]:
        self.begun.append(name)
        yield {"application": flask.current_app.name}
        if name != "quick":
            self.may_end.wait(90)
        yield "last"


@pytest.fixture
def producers() -> Iterator[Producers]:
    made = Producers()
    yield made
    made.may_end.set()


@pytest.fixture
def sse() -> Iterator[SSE]:
    with open_broker("memory://") as broker:
        yield SSE(broker=broker)


@pytest.fixture
def app(sse: SSE, producers: Producers) -> Flask:
    app = Flask("survivor")
    sse.init_app(app)

    def subject() -> str:
        return request.headers.get("User", "anna")

    @app.post("/runs/<name>")
    def start(name: str) -> Any:
        prints = request.args.get("fingerprint", "")
        run = sse.start_run(name, producers.words, name, subject=subject(), fingerprint=prints)
        return {"state": run.state}, 202

    @app.post("/runs/<name>/stream")
    def run(name: str) -> EventStreamResponse:
        return sse.run(name, producers.words, name, subject=subject(), retain=60, keep_alive=5)

    @app.route("/any/<name>", methods=["GET", "HEAD", "OPTIONS"])
    def run_by_any(name: str) -> EventStreamResponse:
        return sse.run(name, producers.words, name, subject=subject())

    @app.get("/runs/<name>")
    def follow(name: str) -> EventStreamResponse:
        return sse.follow_run(name, subject=subject(), keep_alive=5)

    @app.get("/shared/<name>")
    def shared(name: str) -> EventStreamResponse:
        return sse.follow_run(name, authorize=lambda run: run.subject == "anna" and "friend" in request.args)

    @app.post("/runs/<name>/stop")
    def stop(name: str) -> Any:
        return {"stopped": sse.stop_run(name, subject=subject())}

    return app


def events_of(response: Any) -> list[tuple[str | None, str | None]]:
    assert response.status_code == 200, response.text
    return [(event.type, event.data) for event in Decoder().feed(b"".join(response.iter_encoded()))]


ALL = [("message", '{"application":"survivor"}'), ("message", "last"), ("end", '{"state":"done","events":2}')]


def test_a_run_that_is_started_is_followed_from_its_start(app: Flask) -> None:
    client = app.test_client()
    started = client.post("/runs/quick")
    assert started.status_code == 202
    assert events_of(client.get("/runs/quick")) == ALL
    assert events_of(client.get("/runs/quick")) == ALL


def test_a_run_is_started_and_followed_by_one_request(app: Flask, producers: Producers) -> None:
    assert events_of(app.test_client().post("/runs/quick/stream")) == ALL
    assert events_of(app.test_client().post("/runs/quick/stream")) == ALL
    assert producers.begun == ["quick"]


def test_a_client_that_has_the_final_event_is_answered_204(app: Flask) -> None:
    client = app.test_client()
    body = b"".join(client.post("/runs/quick/stream").iter_encoded())
    ids = [event.id for event in Decoder().feed(body)]
    for method in ("HEAD", "GET"):
        answer = client.open("/runs/quick", method=method, headers={"Last-Event-ID": str(ids[-1])})
        assert (answer.status_code, answer.data) == (204, b"")
    assert events_of(client.get("/runs/quick", headers={"Last-Event-ID": str(ids[1])})) == ALL[2:]


@pytest.mark.parametrize("path", ["/runs/quick/stream", "/runs/other/stream"])
def test_a_request_with_a_last_event_id_starts_nothing(app: Flask, producers: Producers, path: str) -> None:
    response = app.test_client().post(path, headers={"Last-Event-ID": "abcd1234-7"})
    assert response.status_code == 404
    assert not producers.begun


def test_another_subject_gets_the_same_answer_as_for_a_run_that_does_not_exist(app: Flask) -> None:
    client = app.test_client()
    client.post("/runs/quick")
    for user, name in (("otto", "quick"), ("anna", "none")):
        answers = [client.get(f"/runs/{name}", headers={"User": user})]
        answers.append(client.post(f"/runs/{name}/stop", headers={"User": user}))
        if name == "quick":
            answers += [client.post(f"/runs/{name}{more}", headers={"User": user}) for more in ("", "/stream")]
        assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}


def test_a_start_with_another_fingerprint_is_a_conflict(app: Flask) -> None:
    client = app.test_client()
    assert client.post("/runs/quick?fingerprint=a").status_code == 202
    assert client.post("/runs/quick?fingerprint=a").status_code == 202
    assert client.post("/runs/quick?fingerprint=b").status_code == 409


def test_a_run_that_is_stopped_ends_its_followers_streams(app: Flask, producers: Producers) -> None:
    client = app.test_client()
    client.post("/runs/long")
    assert client.post("/runs/long/stop").json == {"stopped": True}
    assert client.post("/runs/long/stop").json == {"stopped": False}
    types = [kind for kind, _ in events_of(client.get("/runs/long"))]
    assert types[-1] == "end"


def test_a_function_of_the_run_decides_who_may_follow(app: Flask) -> None:
    client = app.test_client()
    client.post("/runs/quick")
    assert client.get("/shared/quick").status_code == 404
    assert client.get("/shared/none?friend").status_code == 404
    assert events_of(client.get("/shared/quick?friend")) == ALL


def test_who_may_follow_must_be_given(app: Flask, sse: SSE) -> None:
    with app.test_request_context("/"), pytest.raises(TypeError, match="subject=, whose run"):
        sse.follow_run("quick")


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": "abcd1234-7"}])
def test_a_user_who_is_not_logged_in_has_no_run(app: Flask, sse: SSE, headers: dict[str, str]) -> None:
    """``current_user.get_id()`` is None then."""
    nobody: Any = None
    sse.start_run("quick", iter(["secret"]), subject="anna").wait(90)
    with app.test_request_context("/", headers=headers):
        with pytest.raises(TypeError, match="whose run it must be"):
            sse.run("quick", iter(["x"]), subject=nobody)
        with pytest.raises(TypeError, match="logged in"):
            sse.stop_run("quick", subject=nobody)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_a_request_for_the_head_alone_starts_nothing(app: Flask, producers: Producers, method: str) -> None:
    response = app.test_client().open("/any/quick", method=method)
    assert response.status_code == 404
    assert not producers.begun


def test_each_client_may_have_an_envelope(app: Flask, sse: SSE) -> None:
    @app.get("/rpc/<name>")
    def answer(name: str) -> EventStreamResponse:
        return sse.follow_run(name, subject="anna", envelope=jsonrpc_result(7, endings))

    app.test_client().post("/runs/quick")
    endings: dict[str, str] = {}
    data = [data for _, data in events_of(app.test_client().get("/rpc/quick"))]
    assert data == [f'{{"jsonrpc":"2.0","id":7,"result":{each}}}' for _, each in ALL]
    endings["done"] = "all"
    *_, last = events_of(app.test_client().get("/rpc/quick"))
    assert last == ("message", '{"jsonrpc":"2.0","id":7,"result":"all"}')


def test_a_broker_of_one_process_is_warned_of_where_a_server_has_several(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.test_client().get("/runs/none", environ_overrides={"wsgi.multiprocess": True})
    assert "memory://" in caplog.text


def test_a_process_with_no_room_for_producers_answers_503(app: Flask, sse: SSE, producers: Producers) -> None:
    @app.post("/full/<name>")
    def full(name: str) -> EventStreamResponse:
        return sse.run(name, producers.words, name, subject="anna", max_producers=1)

    app.test_client().post("/runs/long")
    response = app.test_client().post("/full/other")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


def test_a_run_may_be_started_without_a_request(app: Flask, sse: SSE) -> None:
    run: Run = sse.start_run("quick", iter(["one"]), subject="anna")
    assert run.wait(90)
    assert run.state == "done"
