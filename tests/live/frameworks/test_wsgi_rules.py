"""Both sides keep to PEP 3333, as the standard library's checker reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ssesync.wire import encode
from tests.apps import producers

from .kinds import APPS, Target
from .switchboard import Switchboard

SERVERS = ["wsgiref", "gthread"]


@pytest.fixture(params=SERVERS)
def checked(request: pytest.FixtureRequest, aim: Callable[..., Target]) -> Callable[[str], Target]:
    return lambda app: aim(request.param, app, "/checked")


@pytest.mark.parametrize("app", APPS)
def test_a_whole_stream_passes_the_checker(checked: Callable[[str], Target], app: str) -> None:
    target = checked(app)
    with target.connect() as connection:
        response = connection.get(target.path("ticks"))
        assert response.status == 200
        assert response.read() == b":ok\n" + b"".join(encode(event) for event in producers.ticks())
    assert target.fetch("plain") == "plain"
    assert not target.has_failed()


@pytest.mark.parametrize("app", APPS)
def test_head_and_204_pass_the_checker(checked: Callable[[str], Target], app: str) -> None:
    target = checked(app)
    with target.connect() as connection:
        assert connection.head(target.path("ticks")).status == 200
    with target.connect() as connection:
        assert connection.get(target.path("finished"), Last_Event_ID="2").status == 204
    assert target.fetch("plain") == "plain"
    assert not target.has_failed()


@pytest.mark.parametrize("app", APPS)
def test_a_stream_that_is_left_passes_the_checker(
    checked: Callable[[str], Target], switchboard: Switchboard, app: str
) -> None:
    target = checked(app)
    with target.connect() as connection:
        connection.get(target.path("leave", line=switchboard.port)).expect(b":ok\n")
        producer = switchboard.producer()
    on_close = switchboard.answer().hear()
    assert on_close is not None
    assert on_close["on_close"] == "client_gone"
    producer.send("too late")
    assert producer.farewell()["closed"] == target.key
    assert target.fetch("plain") == "plain"
    assert not target.has_failed()
