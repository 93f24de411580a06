"""What is encoded as JSON, in the core and in both integrations, and by which encoder."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import flask
import pytest

from ssesync import Event, EventStream, json_default, register_encoder
from ssesync import json_encoder as module
from ssesync.channels.message import body_of
from ssesync_django.encoder import dump_json
from ssesync_flask.state import encoder_of
from tests.cases import each_case


class Color(Enum):
    RED = "red"


class Name(str, Enum):
    FIRST = "first"


@dataclass
class Point:
    x: int
    rest: Any = field(default=None, repr=False)


class Mail:
    def __init__(self, address: str) -> None:
        self.address = address


class LaterMail(Mail):
    """A derived type."""


NUMBER = uuid.UUID(int=1)
MOMENT = datetime(2026, 7, 28, 12, 30, 0, 123456, tzinfo=timezone.utc)
VALUES = [
    pytest.param(Point(1, [Point(2, Color.RED)]), {"x": 1, "rest": [{"x": 2, "rest": "red"}]}, id="dataclasses"),
    pytest.param(Color.RED, "red", id="a member of an Enum"),
    pytest.param([Name.FIRST], ["first"], id="one that is text"),
    pytest.param(NUMBER, str(NUMBER), id="a UUID"),
    pytest.param(PurePosixPath("/a/b"), "/a/b", id="a path"),
    pytest.param(Decimal("0.10"), "0.10", id="a decimal number"),
]
MOMENTS = [
    pytest.param(MOMENT, "2026-07-28T12:30:00.123456+00:00", id="a moment"),
    pytest.param(date(2026, 7, 28), "2026-07-28", id="a date"),
    pytest.param(time(12, 30), "12:30:00", id="a time"),
]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = functools.singledispatch(module._unknown)
    registry.register(Event, module._registered.dispatch(Event))
    monkeypatch.setattr(module, "_registered", registry)


def encoders() -> dict[str, Callable[[Any], str]]:
    app = flask.Flask(__name__)
    return {
        "core": module.dump_json,
        "flask": encoder_of(app),
        "django": dump_json,
    }


@each_case("value, expected", VALUES)
def test_by_each_encoder(value: Any, expected: Any) -> None:
    for name, dumps in encoders().items():
        assert json.loads(dumps({"value": value})) == {"value": expected}, name


@each_case("value, expected", MOMENTS)
def test_moments_are_iso_8601(value: Any, expected: str) -> None:
    assert json.loads(module.dump_json(value)) == expected
    assert json.loads(dump_json(value))[:10] == expected[:10]


def test_the_frameworks_own_encoder_comes_before_the_defaults() -> None:
    app = flask.Flask(__name__)
    assert encoder_of(app)([MOMENT]) == '["Tue, 28 Jul 2026 12:30:00 GMT"]'
    assert dump_json(MOMENT) == '"2026-07-28T12:30:00.123Z"'


def test_what_is_registered_comes_before_all() -> None:
    register_encoder(Mail, lambda mail: {"to": mail.address})
    register_encoder(datetime, lambda moment: int(moment.timestamp()))
    for name, dumps in encoders().items():
        assert json.loads(dumps([LaterMail("a@b"), MOMENT])) == [{"to": "a@b"}, int(MOMENT.timestamp())], name


def test_what_is_registered_may_return_what_is_to_be_encoded_again() -> None:
    register_encoder(Mail, lambda mail: Point(1, Path(mail.address)))
    assert module.dump_json(Mail("a")) == '{"x":1,"rest":"a"}'


def test_only_types_are_registered() -> None:
    with pytest.raises(TypeError, match="takes a type"):
        register_encoder("pydantic.BaseModel", str)  # type: ignore[arg-type]


@each_case("value", [object(), {1, 2}, Mail("a"), Point, {"at": Event("nested")}, b"bytes"])
def test_what_is_unknown_is_refused_by_each(value: Any) -> None:
    for name, dumps in encoders().items():
        with pytest.raises(TypeError):
            pytest.fail(f"{name} gives {dumps({'value': value})}")


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError):
        module.dump_json(Point(1, float("nan")))


def test_an_applications_own_provider_stays_as_it_is() -> None:
    class Provider(flask.json.provider.DefaultJSONProvider):
        def dumps(self, obj: Any, **kwargs: Any) -> str:
            return super().dumps(obj, **{"default": repr, **kwargs})

    app = flask.Flask(__name__)
    app.json = Provider(app)
    assert encoder_of(app)([Color.RED]) == "[\"<Color.RED: 'red'>\"]"


def test_in_streams_and_channels() -> None:
    assert b"".join(EventStream([Point(1, NUMBER)])({}, lambda *_: None)).endswith(
        b'data: {"x":1,"rest":"00000000-0000-0000-0000-000000000001"}\n\n'
    )
    assert body_of(Point(1), "point", None) == b'event: point\ndata: {"x":1,"rest":null}\n\n'


@pytest.mark.slow  # it takes a third of a second to import
def test_models_of_pydantic() -> None:
    pydantic = pytest.importorskip("pydantic", minversion="2")

    class Tool(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        name: str
        id: uuid.UUID = NUMBER
        at: datetime = MOMENT

    for name, dumps in encoders().items():
        given = json.loads(dumps({"tools": [Tool(name="search")]}))
        assert given == {"tools": [json.loads(Tool(name="search").model_dump_json())]}, name


def test_structs_of_msgspec() -> None:
    msgspec = pytest.importorskip("msgspec")

    class Tool(msgspec.Struct):  # type: ignore[misc, name-defined]
        name: str
        where: Path = Path("/a")
        ids: dict[uuid.UUID, Any] = msgspec.field(default_factory=lambda: {NUMBER: Color.RED})

    for name, dumps in encoders().items():
        expected = {"name": "search", "where": "/a", "ids": {str(NUMBER): "red"}}
        assert json.loads(dumps([Tool(name="search")])) == [expected], name


def test_with_orjson() -> None:
    orjson = pytest.importorskip("orjson")
    register_encoder(Mail, lambda mail: mail.address)
    dumps = functools.partial(orjson.dumps, default=json_default)
    given = b"".join(
        EventStream([{"a": [Point(1, Mail("a")), Path("/b"), Decimal(1)]}], dumps=dumps)({}, lambda *_: None)
    )
    assert given.endswith(b'data: {"a":[{"x":1,"rest":"a"},"/b","1"]}\n\n')


@pytest.mark.slow
def test_neither_is_imported() -> None:
    code = "import sys, ssesync; ssesync.Event.from_json([ssesync.json_default(__import__('pathlib').Path('a'))]); "
    code += "print([name for name in ('pydantic', 'msgspec', 'orjson', 'asyncio') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
