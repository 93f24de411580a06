"""What a stream does and says of itself is the same, detached and served by its server's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ssesync.wire.encoder import KEEP_ALIVE
from tests.apps.line import Line

from .leading import Leader

Lead = Callable[[str], Leader]
ON_EACH = pytest.mark.parametrize("name", ["gthread", "sync", "werkzeug", "runserver"])
#: So small that the kernel keeps little of what a client does not read.
TINY = 2_304
COUNT, SIZE = 400, 10_000
BUSY = b"".join(b"id: %d\ndata: %s\n\n" % (number, str(number).ljust(SIZE, "x").encode()) for number in range(COUNT))


@ON_EACH
def test_one_busy_stream_is_the_same_in_order_and_bytes(lead: Lead, name: str) -> None:
    leader, ends = lead(name), {}
    for detach in (True, False):
        leader.key += "-"
        with leader.server.connect() as wire:
            response = wire.get(leader.target("/flask/busy", {"detach": detach}, count=COUNT, size=SIZE))
            assert response.read() == b":ok\n" + BUSY
        ends[detach] = leader.facts("on_close")
    assert ends[True] == ends[False] == [["done", COUNT, len(BUSY) + 4, 0]]


@ON_EACH
def test_a_client_that_does_not_read_is_cut_off(lead: Lead, name: str) -> None:
    leader, reasons = lead(name), {}
    for detach in (True, False):
        leader.key += "-"
        options = {"detach": detach, "send_timeout": 1, "keep_alive": 60}
        with leader.server.connect(receive_buffer=TINY) as wire:
            wire.get(leader.target("/flask/busy", options, count=10 * COUNT, size=SIZE))
            reasons[detach] = leader.facts("on_close")[0][0]
    assert reasons == {True: "stalled", False: "stalled"}


@ON_EACH
def test_a_lifetime_ends_both_with_the_same_figures(lead: Lead, name: str) -> None:
    leader, ends = lead(name), {}
    for detach in (True, False):
        leader.key += "-"
        options = {"detach": detach, "max_lifetime": 0.5, "resumable": True, "retry": 50}
        with leader.server.connect() as wire:
            response = wire.get(leader.target("/flask/leave", options))
            body = response.read()
            assert body.startswith(b"retry: 50\n")
        [[reason, events, size, keep_alives]] = leader.facts("on_close")
        assert size == len(body)
        ends[detach] = reason, events, keep_alives, response.end
    assert ends[True][:3] == ends[False][:3] == ("lifetime", 1, 0)


@ON_EACH
def test_keep_alives_are_the_same_and_counted(lead: Lead, name: str) -> None:
    leader = lead(name)
    for detach in (True, False):
        leader.key += "-"
        with leader.server.connect() as wire:
            response = wire.get(leader.target("/flask/leave", {"detach": detach, "keep_alive": 0.1}))
            response.expect(b":ok\ndata: one\n\n" + 3 * KEEP_ALIVE)
        [[reason, events, size, keep_alives]] = leader.facts("on_close")
        assert (reason, events) == ("client_gone", 1)
        assert keep_alives >= 3
        assert size == len(b":ok\ndata: one\n\n") + keep_alives * len(KEEP_ALIVE)


@ON_EACH
@pytest.mark.parametrize("leave", ["fin", "rst", "half_close"])
def test_a_producer_is_cancelled_when_its_client_leaves(lead: Lead, name: str, leave: str) -> None:
    leader = lead(name)
    for detach in (True, False):
        leader.key += "-"
        wire = leader.server.connect()
        with wire:
            wire.get(leader.target("/flask/leave", {"detach": detach, "keep_alive": 60})).expect(b":ok\ndata: one\n\n")
            producer: Line = leader.answer()
            assert producer.hear() == {"begun": True}
            getattr(wire, leave)()
            assert producer.hear() == {"cancelled": True, "reason": "client_gone"}
        assert leader.facts("on_close")[0][:2] == ["client_gone", 1]


def test_quiet_streams_go_on_beside_a_busy_one(lead: Lead) -> None:
    leader = lead("gthread")
    received: list[Any] = []

    def read() -> None:
        with leader.server.connect() as wire:
            received.append(wire.get(leader.target("/flask/busy", count=COUNT, size=SIZE)).read())

    with leader.stream("/flask/led") as quiet:
        busy = [threading.Thread(target=read) for _ in range(3)]
        for thread in busy:
            thread.start()
        for _ in range(20):
            assert quiet.do("session") == 1
        for thread in busy:
            thread.join()
        assert received == 3 * [b":ok\n" + BUSY]
        quiet.end()
