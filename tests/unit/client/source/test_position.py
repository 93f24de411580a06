"""The last event ID: where it begins, when it moves on, how it is sent."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import pytest

from ssesync import Event, EventError, EventSource
from ssesync.testing import Answer, FakeSSEServer

from ....cases import each_case
from .following import Following, data_of, in_turn, source_of


def requested_ids(server: FakeSSEServer) -> list[str]:
    return [request.last_event_id for request in server.requests]


def test_it_is_sent_from_the_first_connection_on_where_it_is_given(server: FakeSSEServer) -> None:
    server.answer().event("one")
    source = source_of(server, last_event_id="41")
    assert source.last_event_id == "41"
    assert list(source) == [Event("one", type="message", id="41")]
    assert requested_ids(server) == ["41", "41"]
    assert source.last_event_id == "41"


def test_there_is_no_such_header_while_there_is_no_id(server: FakeSSEServer) -> None:
    server.answer().event("one")
    assert data_of(source_of(server)) == ["one"]
    assert ["last-event-id" in request.headers for request in server.requests] == [False, False]


def test_it_moves_as_the_consumer_takes_an_event(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).event("two", id=2).event("no id").event("three", id=3)
    source = source_of(server)
    assert source.last_event_id == ""
    seen = [(event.data, source.last_event_id) for event in source]
    assert seen == [("one", "1"), ("two", "2"), ("no id", "2"), ("three", "3")]
    assert requested_ids(server) == ["", "3"]


def test_what_has_arrived_but_was_not_taken_comes_again_in_a_new_life(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(lambda _: Answer().event("one", id=1).event("two", id=2).event("three", id=3))
    source = source_of(server)
    assert source.read() == Event("one", type="message", id="1")
    source.close()
    assert source.last_event_id == "1"
    stored = pickle.loads(pickle.dumps(source.last_event_id))
    with source_of(server, last_event_id=stored) as again:
        again.read()
    assert requested_ids(server) == ["", "1"]


def test_events_that_were_not_taken_are_requested_again_after_restart(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).event("two", id=2).event("three", id=3).stall()
    server.answer().event("two", id=2)
    source = source_of(server)
    assert source.read().data == "one"  # type: ignore[union-attr]
    source.restart()
    assert data_of(source) == ["two"]
    assert requested_ids(server) == ["", "1", "2"]


def test_an_event_that_is_lost_in_the_consumers_crash_comes_again_if_its_id_was_stored_after_it(
    server: FakeSSEServer,
) -> None:
    server.answer().event("one", id=1).event("two", id=2).stall()
    stored = []

    def handle(event: Event) -> None:
        if event.data == "two":
            raise ZeroDivisionError
        stored.append(event.id or "")

    with pytest.raises(ZeroDivisionError):
        source_of(server).for_each(handle)
    server.answer().event("two", id=2)
    assert data_of(source_of(server, last_event_id=stored[-1])) == ["two"]
    assert requested_ids(server) == ["", "1", "2"]


def test_a_block_that_only_sets_the_id_moves_it_once_all_before_it_was_taken(server: FakeSSEServer) -> None:
    taken = threading.Event()
    server.answer().event("one", id=1).raw("id: 2\n\n").wait_for(taken).raw("id: 3\n").drop()
    source = source_of(server)
    assert source.read().data == "one"  # type: ignore[union-attr]
    assert source.last_event_id == "1"
    taken.set()
    assert source.read() is None
    assert requested_ids(server) == ["", "2"]
    assert source.last_event_id == "2"


def test_an_id_of_an_event_that_was_cut_does_not_count(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).raw("id: 2\ndata: cut\n").drop()
    assert data_of(source_of(server)) == ["one"]
    assert requested_ids(server) == ["", "1"]


def test_the_server_may_empty_it(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).raw("id\ndata: two\n\n")
    source = source_of(server, last_event_id="0")
    assert [event.id for event in source] == ["1", ""]
    assert ["last-event-id" in request.headers for request in server.requests] == [True, False]
    assert source.last_event_id == ""


def test_an_id_with_nul_is_none(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).raw("id: 2\0\ndata: two\n\n")
    assert [event.id for event in source_of(server)] == ["1", "1"]
    assert requested_ids(server) == ["", "1"]


# From the ID to the bytes that are sent for it. Space around a header's value is no part of it.
IDS = {
    "plain-1": b"plain-1",
    "größer": "größer".encode(),
    "日本語🙂": "日本語🙂".encode(),
    "\u3000wide\u3000": "\u3000wide\u3000".encode(),
    "\x85\xa0x": "\x85\xa0x".encode(),
    "  around\t ": b"around",
    "\x1caround\x1f": b"around",
    "a  b": b"a  b",
    '"quoted": {x;y,z}': b'"quoted": {x;y,z}',
    "\x01\x7f": b"\x01\x7f",
    "   ": None,
    "x" * 5000: b"x" * 5000,
}


@each_case("given", IDS, ids=lambda value: ascii(value[:12]))
@each_case("comes_from", ["the caller", "the stream"])
def test_it_is_sent_as_utf_8(given: str, comes_from: str, serve: Callable[..., FakeSSEServer]) -> None:
    server = serve(in_turn(Answer().raw(f"id: {given}\ndata: one\n\n")))
    source = source_of(server, last_event_id=given if comes_from == "the caller" else "")
    event = source.read()
    assert event is not None
    assert event.id == source.last_event_id == given
    assert source.read() is None
    for request in server.requests[comes_from == "the stream" :]:
        sent = request.headers.get("last-event-id")
        assert (None if sent is None else sent.encode("latin-1")) == IDS[given]


@each_case("given", ["a\nb", "a\rb", "a\0b", "\ud800"], ids=ascii)
def test_an_id_that_can_not_be_sent_is_refused_at_once(given: str) -> None:
    with pytest.raises(EventError):
        EventSource("http://127.0.0.1/", last_event_id=given)


def test_it_wins_over_a_header_of_the_callers(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1)
    assert data_of(source_of(server, headers={"last-event-id": "0"})) == ["one"]
    assert requested_ids(server) == ["0", "1"]


class TestManual:
    """``commit="manual"``: only what was acknowledged does not come again."""

    def test_what_was_not_acknowledged_comes_again(self, server: FakeSSEServer) -> None:
        server.answer().event("one", id=1).event("two", id=2).event("three", id=3).drop()
        server.answer().event("two", id=2).event("three", id=3)
        source = source_of(server, commit="manual")
        first = source.read()
        assert first is not None
        assert source.last_event_id == ""
        source.ack(first)
        assert source.last_event_id == "1"
        assert data_of(source) == ["two", "three", "two", "three"]
        assert requested_ids(server) == ["", "1", "1"]
        assert source.last_event_id == "1"

    def test_an_event_stands_for_all_before_it(self, server: FakeSSEServer) -> None:
        server.answer().event("one", id=1).event("two", id=2).event("no id").raw("id: 4\n\n")
        source = source_of(server, commit="manual", last_event_id="0")
        events = [source.read() for _ in range(3)]
        assert source.last_event_id == "0"
        source.ack(events[2])  # type: ignore[arg-type]
        assert source.read() is None
        assert requested_ids(server) == ["0", "2"]

    def test_the_server_may_empty_it(self, server: FakeSSEServer) -> None:
        server.answer().event("one", id=1).raw("id:\ndata: two\n\n")
        source = source_of(server, commit="manual", last_event_id="0")
        for event in source:
            source.ack(event)
        assert requested_ids(server) == ["0", ""]

    def test_another_thread_may_acknowledge_while_the_stream_is_read_or_waited_for(self, server: FakeSSEServer) -> None:
        for number in range(1, 4):
            server.answer().event(str(number), id=number).stall()
        following = Following(source_of(server, commit="manual"))
        for number in range(1, 4):
            following.wait_for_events(number)
            following.source.ack(following.events[-1])
            following.source.restart()
        assert len(following.result()) == 3
        assert requested_ids(server) == ["", "1", "2", "3"]

    def test_without_it_nothing_can_be_acknowledged(self) -> None:
        with pytest.raises(RuntimeError, match="manual"):
            EventSource("http://127.0.0.1/").ack(Event("x", id="1"))

    def test_another_word_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'auto'"):
            EventSource("http://127.0.0.1/", commit="auto")  # type: ignore[arg-type]
