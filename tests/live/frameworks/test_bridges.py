"""WSGI applications inside an ASGI server. What is between does not pass a client's leaving on, which is warned of."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.servers import Kind, running, uvicorn

from .switchboard import Switchboard

BRIDGES = {"a2wsgi.WSGIMiddleware": "a2wsgi", "asgiref.wsgi.WsgiToAsgi": "asgiref's WsgiToAsgi"}
if importlib.util.find_spec("starlette.middleware.wsgi"):  # deprecated there, in favour of a2wsgi
    BRIDGES["starlette.middleware.wsgi.WSGIMiddleware"] = "Starlette's WSGIMiddleware"


@pytest.mark.parametrize("bridge", BRIDGES)
def test_streams_work_with_keep_alives_and_one_warning_that_a_disconnect_is_not_noticed(
    tmp_path: Path, switchboard: Switchboard, bridge: str
) -> None:
    kind = Kind("bridged", uvicorn("flask_app.bridged"), environment={"TESTS_BRIDGE": bridge})
    with running(kind, tmp_path) as server:
        for _ in range(2):
            wire, response = server.open(f"/events?line={switchboard.port}")
            with wire:
                producer = switchboard.producer()
                producer.send("first")
                response.find(b"data: first\n\n")
                response.expect(b":keep-alive\n")
                producer.send("second")
                assert response.find(b"data: second\n\n").replace(b":keep-alive\n", b"") == b""
                producer.end()
                assert response.read().replace(b":keep-alive\n", b"") == b""
        warning = f"runs inside an ASGI server, by {BRIDGES[bridge]}, which does not report that a client has left"
        assert server.log().count(warning) == 1
