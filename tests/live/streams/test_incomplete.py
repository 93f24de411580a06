"""An answer that its producer did not end looks incomplete to a client that can't resume, on every server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.http_client import Response
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Server, Wire

from .kinds import KINDS, OPENING, gunicorn, path

SILENT = {"keep_alive": 60, "max_streams": None}
SECRET = "the password is sesame"


def ask(server: Server, target: str, *, method: str = "POST", version: str = "1.1", **headers: str) -> tuple[Wire, Any]:
    """A stream, asked for as a client that can't resume does."""
    wire = server.connect()
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *(f"{name}: {headers[name]}" for name in headers)]
    length = ["Content-Length: 0"] if method == "POST" else []
    wire.socket.sendall("\r\n".join([*lines, *length, "", ""]).encode())
    response = Response(wire, method)
    assert response.status == 200, server.log()[-2000:]
    return wire, response


def rest_of(response: Response) -> tuple[bytes, str | None]:
    """What is left of an answer, and how it ended; ``"incomplete"`` and ``"reset"`` where it is not whole."""
    pieces = []
    try:
        while piece := response.piece():
            pieces.append(piece)
    except EOFError:
        return b"".join(pieces), "incomplete"
    except ConnectionResetError:
        return b"".join(pieces), "reset"
    return b"".join(pieces), response.end


def assert_is_error_event(data: bytes) -> None:
    [event] = data.removesuffix(b"\n\n").split(b"\n\n")
    kind, line = event.split(b"\n")
    assert kind == b"event: error"
    content = json.loads(line.removeprefix(b"data: "))
    assert content["type"] == "error"
    assert content["error"] == {"message": content["message"], "type": "server_error", "code": None}


@pytest.mark.parametrize("cause", ["raise", "cancel"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_post_that_ends_early_is_incomplete(server: Server, switchboard: Switchboard, version: str, cause: str):
    before = len(server.log())
    wire, response = ask(server, path(do="led", line=switchboard.port, options=SILENT), version=version)
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        producer.say(event="half of the answer")
        response.expect(b"data: half of the answer\n\n")
        producer.say(do=cause, text=SECRET)
        data, end = rest_of(response)
    assert_is_error_event(data)
    assert SECRET.encode() not in data
    if response.chunked and version == "1.1":
        assert end == "incomplete"
    elif server.kind.transport in ("unix", "tls"):
        # A unix socket knows no reset, and Python's ssl module takes one for an end.
        assert end in ("incomplete", "eof")
    else:
        assert end in ("incomplete", "reset")
    closed = switchboard.answer().hear()
    assert closed is not None
    assert closed["on_close"] == ("error" if cause == "raise" else "cancelled")
    assert server.fetch("/plain") == "plain"
    log = server.log()[before:]
    assert log.count("Traceback") == (1 if cause == "raise" else 0), log


@pytest.mark.parametrize("detach", ["auto", False], ids=["detached", "served"])
@pytest.mark.parametrize("server", ["gthread", "sync"], indirect=True)
def test_a_stream_that_is_cancelled_after_its_producers_end_is_incomplete(
    server: Server, switchboard: Switchboard, detach: Any
):
    options = SILENT | {"detach": detach, "max_pending_events": 1_000, "max_pending_bytes": 100_000_000}
    wire, response = ask(server, path(do="ended", line=switchboard.port, options=options))
    with wire:
        response.expect(OPENING)
        canceller = switchboard.answer()
        report = canceller.hear()
        assert report is not None
        assert report["reason"] == "done"
        assert report["pending"][0] > 100
        canceller.say(do="cancel")
        assert canceller.hear() == {"reason": "cancelled"}
        data, end = rest_of(response)
    assert end == "incomplete"
    whole, _, last = data.rpartition(b"event: error\n")
    assert_is_error_event(b"event: error\n" + last)
    assert whole == b"data: " + b"\n\ndata: ".join(len(whole.split()) // 2 * [b"x" * 60_000]) + b"\n\n"
    closed = switchboard.answer().hear()
    assert closed is not None
    assert closed["on_close"] == "cancelled"
    assert server.fetch("/plain") == "plain"


def test_over_http_2_the_stream_is_reset(serve: Callable[..., Server], switchboard: Switchboard):
    h2 = pytest.importorskip("h2.connection", reason="gunicorn serves HTTP/2 where h2 is installed")
    config = pytest.importorskip("gunicorn.config")
    if "http2_cleartext" not in config.make_settings():
        pytest.skip("this gunicorn has no HTTP/2 without TLS")
    events = pytest.importorskip("h2.events")
    command = gunicorn(
        "--worker-class", "gthread", "--threads", "4", "--http-protocols", "h2,h1", "--http2-cleartext", "both"
    )
    server = serve(replace(KINDS["gthread"], name="http2", command=command))
    connection = h2.H2Connection()
    connection.initiate_connection()
    target = path(do="led", line=switchboard.port, options=SILENT)
    headers = {":method": "POST", ":path": target, ":scheme": "http", ":authority": "localhost"}
    connection.send_headers(connection.get_next_available_stream_id(), list(headers.items()), end_stream=True)
    body, happened = bytearray(), []
    with server.connect() as wire:

        def read() -> None:
            wire.socket.sendall(connection.data_to_send())
            happened[:] = connection.receive_data(wire.receive())
            body.extend(b"".join(event.data for event in happened if isinstance(event, events.DataReceived)))

        while not body:
            read()
        switchboard.answer().say(do="cancel")
        while not (reset := [event for event in happened if isinstance(event, events.StreamReset)]):
            assert not any(isinstance(event, events.StreamEnded) for event in happened)
            read()
    assert_is_error_event(bytes(body).removeprefix(OPENING))
    assert reset[0].error_code == 2  # INTERNAL_ERROR
    assert "Traceback" not in server.log()
