"""A client that leaves is noticed at once, on every server, without a byte being written to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.live.frameworks.switchboard import Switchboard
from tests.servers import Fleet, Server, Wire

from .kinds import FIRST, KINDS, OPENING, path

#: Nothing is written by itself for as long as any of these tests takes.
SILENT = {"keep_alive": 60, "max_streams": None, "send_timeout": 20}

LEAVE: dict[str, Callable[[Wire], None]] = {
    "FIN": Wire.fin,
    "RST": Wire.rst,
    "half-close": Wire.half_close,
}


@pytest.mark.parametrize("bytes_behind", [b"", b"GET /pipe"], ids=["", "behind pipelined bytes"])
@pytest.mark.parametrize(
    ("server", "leave"),
    # Unix sockets know no reset.
    [(name, leave) for name in KINDS for leave in LEAVE if (name, leave) != ("gthread_unix", "RST")],
    indirect=["server"],
)
def test_a_client_that_leaves_a_silent_stream_is_noticed_without_a_write(
    server: Server, switchboard: Switchboard, leave: str, bytes_behind: bytes
):
    # Tests of other files, which use the same servers, have producers that fail.
    before = len(server.log())
    wire, response = server.open(path(do="idle", line=switchboard.port, options=SILENT))
    with wire:
        response.expect(OPENING + FIRST)
        producer = switchboard.answer()
        assert "pid" in (producer.hear() or {})
        if bytes_behind:
            wire.pipeline(bytes_behind)
        LEAVE[leave](wire)
        assert producer.hear() == {"cancelled": "client_gone", "closed": "client_gone"}
        assert switchboard.answer().hear() == {
            "on_close": "client_gone", "events": 1, "bytes": len(OPENING + FIRST), "keep_alives": 0, "senses": True,
        }  # fmt: skip
    # on_close runs on the server's thread; here it has become free.
    assert server.fetch("/plain") == "plain"
    assert "Traceback" not in server.log()[before:]


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_producer_that_waits_for_a_slow_client_wakes_when_it_leaves(server: Server, switchboard: Switchboard):
    wire, response = server.open(path(do="flood", line=switchboard.port, options=SILENT), receive_buffer=32_768)
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        with contextlib.suppress(TimeoutError):
            while producer.hear(timeout=0.5):
                pass
        wire.fin()
        switchboard.check_end(producer, "client_gone")
    assert server.fetch("/plain") == "plain"


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_with_the_opt_out_a_half_close_keeps_the_stream_and_a_real_close_ends_it(
    server: Server, switchboard: Switchboard
):
    options = SILENT | {"half_close_is_gone": False}
    wire, response = server.open(path(do="led", line=switchboard.port, options=options))
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        assert "pid" in (producer.hear() or {})
        wire.half_close()
        assert wire.still_open()
        producer.say(event="after")
        response.expect(b"data: after\n\n")
        LEAVE["FIN" if server.kind.transport == "unix" else "RST"](wire)
        report = switchboard.answer().hear()
        assert report is not None
        assert report["on_close"] == "client_gone"
        assert report["senses"]
        assert report["keep_alives"] == 0


def test_under_an_unknown_server_failing_keep_alives_show_a_disconnect_and_senses_disconnect_is_false(
    fleet: Fleet[Server], switchboard: Switchboard
):
    server = fleet(KINDS["gthread"])
    target = path(do="idle", line=switchboard.port, hide=1, options=SILENT | {"keep_alive": 0.05})
    wire, response = server.open(target)
    with wire:
        response.expect(OPENING)
        producer = switchboard.answer()
        assert "pid" in (producer.hear() or {})
        [stream] = server.state()["streams"]
        assert stream["senses_disconnect"] is False
    assert producer.hear() == {"cancelled": "client_gone", "closed": "client_gone"}
    report = switchboard.answer().hear()
    assert report is not None
    assert report["on_close"] == "client_gone"
    assert report["keep_alives"] > 0
    assert not report["senses"]


def test_without_sense_disconnect_a_half_close_is_no_end_and_failing_keep_alives_show_a_disconnect(
    fleet: Fleet[Server], switchboard: Switchboard
):
    server = fleet(KINDS["gthread"])
    options = SILENT | {"keep_alive": 0.05, "sense_disconnect": False}
    wire, response = server.open(path(do="idle", line=switchboard.port, options=options))
    with wire:
        response.expect(OPENING + FIRST)
        wire.half_close()
        response.expect(b":keep-alive\n" * 5)
        producer = switchboard.answer()
        wire.rst()
    assert "pid" in (producer.hear() or {})
    assert producer.hear() == {"cancelled": "client_gone", "closed": "client_gone"}
    report = switchboard.answer().hear()
    assert report is not None
    assert (report["on_close"], report["senses"]) == ("client_gone", False)


def test_a_stream_that_is_seen_says_that_it_senses(fleet: Fleet[Server], switchboard: Switchboard):
    server = fleet(KINDS["gthread"])
    wire, response = server.open(path(do="idle", line=switchboard.port, options=SILENT))
    with wire:
        response.expect(OPENING)
        [stream] = server.state()["streams"]
        assert stream["senses_disconnect"] is True
        producer = switchboard.answer()
    # What fails since nobody hears it would stand in the log that other tests look at.
    assert "pid" in (producer.hear() or {})
    assert producer.hear() == {"cancelled": "client_gone", "closed": "client_gone"}
    assert switchboard.answer().hear() is not None
