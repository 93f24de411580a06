"""Sentry's and OpenTelemetry's middleware, which wrap the response: the stream works, and what they record ends."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

from tests.servers import eventually

from .leading import WRAPPED, Leader


def is_installed(name: str) -> bool:
    """Whether a module can be imported; it takes half a second to import them."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


pytestmark = pytest.mark.skipif(
    not (is_installed("sentry_sdk") and is_installed("opentelemetry.instrumentation.wsgi")),
    reason="Sentry's and OpenTelemetry's packages are not installed",
)
Lead = Callable[[str], Leader]
ON_EACH = pytest.mark.parametrize("name", WRAPPED)


@ON_EACH
@pytest.mark.parametrize("place", ["flask", "django"])
@pytest.mark.parametrize("wrapper", ["sentry", "opentelemetry"])
def test_a_wrapped_response_is_detached_and_nothing_is_lost(lead: Lead, name: str, place: str, wrapper: str) -> None:
    leader = lead(name)
    with leader.stream(f"/wrapped/{wrapper}/{place}/led") as stream:
        # The server's response is over, and with it what is recorded of the request.
        assert eventually(lambda: leader.key in str(leader.facts("ended", of=wrapper)))
        assert stream.do("session") == 1
        assert stream.do("request")[0] == "GET"
        stream.end()
    assert leader.facts("on_close")[0][:2] == ["done", 3]
    before = leader.server.log()
    with leader.stream(f"/wrapped/{wrapper}/{place}/led", {"detach": False}, detached=False) as stream:
        assert stream.do("session") == 1
        stream.end()
    assert eventually(lambda: str(leader.facts("ended", of=wrapper)).count(leader.key) == 2)
    assert [each[:2] for each in leader.facts("on_close", 2)] == [["done", 3], ["done", 2]]
    assert "Traceback" not in leader.server.log()[len(before) :]


@ON_EACH
def test_what_a_producer_raises_is_sent_to_sentry(lead: Lead, name: str) -> None:
    leader = lead(name)
    with leader.server.connect() as wire:
        response = wire.get("/wrapped/sentry/flask/failing")
        assert response.status == 200
        assert b"data: one\n\nevent: error\n" in response.read_broken()
    assert "LookupError" in leader.facts("raised", of="sentry")
