"""What is warned of because of the way a request came."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
from django.http import HttpRequest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder

from ssesync import EventStream, Writer
from ssesync.server import environ as environs
from ssesync.server.environ import bridge_of

from .test_stream import environ

LIMIT: dict[str, Any] = {"max_streams_per_key": 5}
WARNING = "which sends X-Forwarded-For"


@pytest.fixture(autouse=True)
def _nothing_was_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environs, "_warned", {})


def serve(options: dict[str, Any], **more: Any) -> None:
    stream = EventStream(Writer(), **options)
    assert stream.open(environ(**{"REMOTE_ADDR": "10.0.0.1", **more})) == "200 OK"
    stream.close()


def test_a_proxy_whose_address_is_counted_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for client in ("192.0.2.1", "192.0.2.2"):
        serve(LIMIT, HTTP_X_FORWARDED_FOR=client)
    (record,) = caplog.records
    assert "max_streams_per_key counts the streams of the address '10.0.0.1'" in record.getMessage()
    assert WARNING in record.getMessage()


def test_the_address_of_a_unix_socket_is_empty_and_is_warned_of_too(caplog: pytest.LogCaptureFixture) -> None:
    serve(LIMIT, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="192.0.2.1")
    assert WARNING in caplog.text


def test_a_key_that_gives_nothing_stands_for_the_address(caplog: pytest.LogCaptureFixture) -> None:
    serve(LIMIT | {"key": lambda environ: None}, HTTP_X_FORWARDED_FOR="192.0.2.1")
    assert WARNING in caplog.text


def proxied(environ: dict[str, Any]) -> dict[str, Any]:
    """As Werkzeug's middleware leaves it."""
    seen: list[dict[str, Any]] = []
    ProxyFix(lambda environ, start_response: seen.append(environ) or [])(environ, lambda *args: None)  # type: ignore[arg-type, func-returns-value, return-value]
    return seen[0]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}),
        (LIMIT | {"key": "ada"}, {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}),
        (LIMIT | {"key": lambda environ: "ada"}, {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}),
        (LIMIT, {}),
        (LIMIT, {"HTTP_X_FORWARDED_FOR": "192.0.2.1, 192.0.2.2", "REMOTE_ADDR": "192.0.2.2"}),
        (LIMIT, proxied({"HTTP_X_FORWARDED_FOR": "192.0.2.1", "REMOTE_ADDR": "10.0.0.1"})),
    ],
)
def test_no_warning_is_logged_if_no_proxy_is_counted(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], more: dict[str, Any]
) -> None:
    serve(options, **more)
    assert caplog.records == []


def test_a_forked_process_warns_anew(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(LIMIT, HTTP_X_FORWARDED_FOR="192.0.2.1")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    serve(LIMIT, HTTP_X_FORWARDED_FOR="192.0.2.1")
    assert len(caplog.records) == 2


@pytest.fixture
def spooled() -> Iterator[Any]:
    with SpooledTemporaryFile() as file:
        yield file


def test_what_is_no_bridge_is_not_taken_for_one(spooled: Any) -> None:
    """Of the bridges themselves tests/live/frameworks/test_bridges.py has the real ones."""
    several = {"wsgi.multithread": True, "wsgi.multiprocess": True}
    assert bridge_of({**several, "wsgi.input": spooled, "SERVER_SOFTWARE": "gunicorn/22.0"}) is None
    assert bridge_of({**several, "wsgi.input": io.BufferedReader(io.BytesIO())}) is None  # type: ignore[arg-type]
    assert bridge_of(EnvironBuilder().get_environ()) is None
    assert bridge_of(HttpRequest().META) is None
