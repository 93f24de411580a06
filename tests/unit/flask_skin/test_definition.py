"""What can be known where a view is defined or an application is configured is said there."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView

from ssesync import SettingsError, Writer, open_broker
from ssesync_flask import SSE, event_stream, event_writer

from ...cases import each_case


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.testing = True
    return app


def generator() -> Iterator[str]:
    yield "x"


# options and functions


@each_case("decorate", [event_stream, event_writer])
@each_case(
    "options, message",
    [
        ({"keepalive": 5}, "did you mean 'keep_alive'"),
        ({"on_clos": print}, "did you mean 'on_close'"),
        ({"keep_alive": -1}, "keep_alive"),
        ({"cors_origins": "https://app.example"}, "cors_origins"),
    ],
)
def test_options_are_checked_by_the_decorator(
    decorate: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        decorate(**options)


async def asynchronous(*args: Any) -> bool:
    return False


@each_case("decorate", [event_stream, event_writer])
@each_case("options", [{"finished": asynchronous}, {"on_close": asynchronous}, {"on_close": "log"}])
def test_callbacks_that_can_t_work_are_refused_by_the_decorator(
    decorate: Callable[..., Any], options: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        decorate(**options)


def test_an_asynchronous_view_is_refused_by_the_decorator() -> None:
    async def yields() -> Any:
        yield "x"

    for view in (asynchronous, yields):
        for decorate in (event_stream, event_writer, event_stream(retry=5), event_writer(retry=5)):
            with pytest.raises(TypeError, match="use def instead of async def"):
                decorate(view)


def test_a_generator_with_a_writer_is_refused_by_the_decorator() -> None:
    def job(w: Writer) -> Iterator[str]:
        yield "x"

    for decorate in (event_writer, event_writer(retry=5)):
        with pytest.raises(TypeError, match=r"job\(\) yields, but it is called with a writer"):
            decorate(job)


# the order of decorators


def test_a_route_below_the_decorator_is_an_error_at_its_first_request(app: Flask) -> None:
    @event_stream
    @app.get("/wrong")
    def wrong() -> Iterator[str]:
        yield "x"

    @event_writer(retry=5)
    @app.get("/wrong/writer")
    def wrong_writer(w: Writer) -> None: ...

    @app.get("/right")
    @event_stream
    def right() -> Iterator[str]:
        yield "x"

    client = app.test_client()
    for path, name in (("/wrong", r"wrong"), ("/wrong/writer", "wrong_writer")):
        with pytest.raises(TypeError, match=f"{name} was registered .* put the route's decorator"):
            client.get(path)
    assert client.get("/right").mimetype == "text/event-stream"
    assert client.get("/none").status_code == 404


def test_it_is_in_a_blueprint_too_and_without_the_decorated_view_being_kept() -> None:
    app, blueprint = Flask(__name__), Blueprint("b", __name__)

    def wrong() -> Iterator[str]:
        yield "x"

    event_stream(blueprint.get("/wrong")(wrong))
    app.register_blueprint(blueprint)
    response = app.test_client().get("/wrong")
    assert (response.status_code, response.mimetype) == (500, "text/html")
    assert b"data:" not in response.data


@pytest.mark.slow
def test_a_function_with_a_route_of_its_own_beside_the_decorated_one_is_meant(app: Flask) -> None:
    def items() -> list[int]:
        return [1, 2]

    def protected(view: Any) -> Any:
        @functools.wraps(view)
        def wrapper() -> Any:
            return view()

        return wrapper

    app.add_url_rule("/items", view_func=items)
    app.add_url_rule("/items/events", "events", view_func=protected(event_stream(items)))
    client = app.test_client()
    assert client.get("/items").json == [1, 2]
    assert client.get("/items/events").mimetype == "text/event-stream"


def test_decorators_of_a_method_view_are_right_as_they_stand(app: Flask) -> None:
    class Events(MethodView):
        decorators = (event_stream,)

        def get(self) -> list[str]:
            return ["x"]

    app.add_url_rule("/class", view_func=Events.as_view("class"))
    assert app.test_client().get("/class").data == b":ok\ndata: x\n\n"


# configuration


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"SSESYNC_KEEP_ALIVE": 5}, "SSESYNC_KEEP_ALIVE: options go into the mapping SSESYNC, as 'keep_alive'"),
        ({"SSESYNC_KEEPALIVE": 5}, "as 'keep_alive'"),
        ({"SSESYNC_BROKER_URL": "memory://"}, "SSESYNC_BROKER_URL: did you mean 'SSESYNC_BROKER'"),
        ({"SSESYNC_ALTOGETHER_UNRELATED": 1}, "UNRELATED: there are SSESYNC, SSESYNC_BROKER"),
        ({"SSESYNC_BROKER": ""}, "the broker's URL is empty"),
        ({"SSESYNC_BROKER": " "}, "the broker's URL is empty"),
        ({"SSESYNC_KEEPER": "run/keeper.sock"}, "keeper takes the absolute path of a unix socket, or several"),
        ({"SSESYNC": [("retry", 5)]}, "SSESYNC takes a mapping of options, got list"),
    ],
)
def test_mistakes_in_the_configuration_are_named_by_init_app(app: Flask, config: dict[str, Any], message: str) -> None:
    app.config.update(config)
    with pytest.raises(SettingsError, match=message):
        SSE(app)


def test_the_configuration_names_the_keeper_of_the_broker(app: Flask) -> None:
    assert SSE(app).broker.keeper is None  # the environment's, if there is one
    app.config["SSESYNC_KEEPER"] = "/run/app/one.sock, /run/app/two.sock"
    assert SSE(app).broker.keeper == "/run/app/one.sock, /run/app/two.sock"


def test_without_the_extension_they_are_named_by_the_first_view(app: Flask) -> None:
    app.config["SSESYNC_KEEP_ALIVE"] = 5
    app.add_url_rule("/", view_func=event_stream(generator))
    with pytest.raises(SettingsError, match="SSESYNC_KEEP_ALIVE"):
        app.test_client().get("/")


def test_an_empty_default_broker_is_an_error_and_none_is_none(app: Flask) -> None:
    with pytest.raises(SettingsError, match="empty"):
        SSE(app, broker="")
    app.config["SSESYNC_BROKER"] = None
    assert SSE(app, broker=None).broker.publish("a", "x")


def test_a_relative_path_of_an_sqlite_log_is_warned_of(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for where in (f"sqlite:///{tmp_path}/log.db", open_broker("sqlite:///log.db"), "memory://"):
        SSE(app, broker=where)
    assert caplog.records == []
    app.config["SSESYNC_BROKER"] = "sqlite:///data/a%20b.db?max_events=5"
    SSE(app)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "relative path data/a b.db" in record.getMessage()
    assert '"sqlite:///{app.instance_path}/a b.db"' in record.getMessage()
