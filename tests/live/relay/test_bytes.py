"""Without a transform bytes pass as they are, at once, and nothing of ours comes between those of one event."""

from __future__ import annotations

import itertools
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssesync import Event, EventStream, Relay
from ssesync.testing import CHUNKED, FIN, HOLD, LAST_CHUNK, RST, FakeSSEServer, chunk, head
from ssesync.wire import Decoder
from ssesync.wire.blocks import Blocks
from ssesync.wire.encoder import KEEP_ALIVE, encode
from tests.unit.client.raw_server import FRAMINGS, TIMEOUT

from .conftest import OPENING

Ask = Callable[..., Any]
Upstream = Callable[..., FakeSSEServer]
ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


def open_stream(response: Any, *, keep_alive: float | None = None, **options: Any) -> EventStream:
    """A stream whose opening was taken."""
    stream = EventStream(Relay(response, **options), keep_alive=keep_alive, first_event_timeout=0)
    assert stream.open() == "200 OK"
    assert next(stream) == OPENING
    return stream


def take(stream: EventStream, size: int) -> bytes:
    """At least so many bytes of a stream."""
    data = b""
    while len(data) < size:
        data += next(stream)
    return data


def lively(count: int, chance: random.Random, end: bytes) -> bytes:
    """Events of all kinds, comments and reconnection times between them."""
    words = ["", "x", " y", ":", "größer", "data: z", "a" * 3000, "{}", "\t"]
    pieces = []
    for number in range(count):
        lines = [f"data: {chance.choice(words)}" for _ in range(chance.randint(1, 3))]
        lines.insert(0, chance.choice([f"id: {number}", "event: token", f"id:{number}", "retry: 10", ": note", "data"]))
        pieces.append("\n".join(lines) + "\n\n")
        pieces.append(chance.choice(["", "", "", ":keep-alive\n", ": a\n\n", "retry: 2000\n", "\n"]))
    return "".join(pieces).encode().replace(b"\n", end)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_thousands_of_events_pass_byte_for_byte_however_they_are_cut(end: bytes, upstream: Upstream, ask: Ask) -> None:
    chance = random.Random(end)
    sent = lively(5_000, chance, end)
    pieces = []
    at = 0
    while at < len(sent):
        size = chance.choice([1, 2, 7, 100, 5_000, 100_000])
        pieces.append(chunk(sent[at : at + size]))
        at += size
    server = upstream([head(CHUNKED), *(b"".join(pieces[i : i + 50]) for i in range(0, len(pieces), 50)), LAST_CHUNK])
    stream = open_stream(ask(server))
    assert b"".join(stream) == sent
    assert stream.reason == "done"


@pytest.mark.parametrize("framing", FRAMINGS)
def test_each_event_passes_before_the_next_one_is_sent(framing: str, upstream: Upstream, ask: Ask) -> None:
    events = [b"id: %d\ndata: token %d\n\n" % (number, number) for number in range(5)]
    begin, sent, end = FRAMINGS[framing](events)
    came = threading.Semaphore(0)

    def script(_: object) -> Iterator[Any]:
        yield begin
        for pieces in sent:
            yield b"".join(pieces)
            yield came
        yield from end

    with ask(upstream(script)) as response:
        stream = open_stream(response)
        for event in events:
            assert take(stream, len(event)) == event
            came.release()
        assert list(stream) == []


def test_a_keep_alive_never_comes_within_an_event(upstream: Upstream, ask: Ask) -> None:
    go_on = threading.Semaphore(0)
    parts = [b"data: on", b"e\n", b"data: two\n", b"\n"]

    def script(_: object) -> Iterator[Any]:
        yield head(CHUNKED)
        for part in parts:
            yield chunk(part)
            yield go_on
        yield LAST_CHUNK

    stream = open_stream(ask(upstream(script)), keep_alive=0.05)
    data = b""
    for _ in parts[:-1]:
        for _ in range(3):
            data += next(stream)
        go_on.release()
    event = b"".join(parts)
    while event not in data:
        data += next(stream)
    go_on.release()
    assert data.replace(KEEP_ALIVE, b"") == event
    assert data.count(KEEP_ALIVE) >= 9


@pytest.mark.parametrize(
    "first",
    [
        b": a comment\n",
        b":\n\n",
        b"retry: 5000\n",
        b": a comment\r\n",
        b": one\r\n: two\r\nretry: 1\r\n\r\n",
        b":lone\r",
        b"data: x\n\n: behind an event\n",
        b"data: x\r\r: behind an event\r",
        b"data: x\n\nretry: 1\n: behind that\n",
        b"\n\n\n",
    ],
)
def test_what_stands_alone_passes_at_once(first: bytes, upstream: Upstream, ask: Ask) -> None:
    came = threading.Event()

    def script(_: object) -> Iterator[Any]:
        for at in range(0, len(first), 2):
            yield (b"" if at else head(CHUNKED)) + chunk(first[at : at + 2])
        yield came
        yield chunk(b"data: y\n\n") + LAST_CHUNK

    stream = open_stream(ask(upstream(script)))
    assert take(stream, len(first)) == first
    came.set()
    assert b"".join(stream) == b"data: y\n\n"


def test_a_line_end_of_two_bytes_is_not_torn_apart(upstream: Upstream, ask: Ask) -> None:
    go_on = threading.Semaphore(0)

    def script(_: object) -> Iterator[Any]:
        yield head(CHUNKED) + chunk(b"data: x\r\n\r")
        yield go_on
        yield chunk(b"\n: y\r")
        yield go_on
        yield chunk(b"\n") + LAST_CHUNK

    stream = open_stream(ask(upstream(script)), keep_alive=0.05)
    data = next(stream) + next(stream)
    assert data == KEEP_ALIVE * 2
    go_on.release()
    while b"x" not in data:
        data += next(stream)
    data += next(stream)
    go_on.release()
    data += b"".join(stream)
    assert data.replace(KEEP_ALIVE, b"") == b"data: x\r\n\r\n: y\r\n"
    assert not re.search(rb"\r(?!\n)", data)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_byte_order_mark_is_removed_since_the_preamble_is_first(cut: int, upstream: Upstream, ask: Ask) -> None:
    sent = b"\xef\xbb\xbfdata: x\n\n"
    pieces = [piece for piece in (sent[:cut], sent[cut:]) if piece]
    stream = open_stream(ask(upstream([head(CHUNKED), *map(chunk, pieces), LAST_CHUNK])))
    data = b"".join(stream)
    assert data == b"data: x\n\n"
    assert Decoder().feed(OPENING + data) == [Event("x", type="message")]


def test_an_unfinished_event_at_the_end_is_left_to_the_client(upstream: Upstream, ask: Ask) -> None:
    stream = open_stream(ask(upstream([head(CHUNKED), chunk(b"data: x\n\ndata: [DONE]\n"), LAST_CHUNK])))
    assert b"".join(stream) == b"data: x\n\ndata: [DONE]\n"


@pytest.mark.parametrize("cut", [FIN, RST])
def test_an_upstream_that_breaks_off_ends_the_stream_with_an_error_event_and_the_reason_is_logged(
    cut: Any, upstream: Upstream, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    came = threading.Event()
    server = upstream([head(CHUNKED), chunk(b"data: whole\n\ndata: ha"), came, cut])
    stream = open_stream(ask(server))
    data = take(stream, 1)
    came.set()
    data += b"".join(stream)
    assert data.startswith(b"data: whole\n\n")
    whole, error = Decoder().feed(data)
    assert (whole.data, error.type) == ("whole", "error")
    assert error.json()["error"]["message"] == "The stream ended because of an error on the server."
    assert stream.reason == "error"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert "connection" in str(record.exc_info[1])


def test_an_upstream_that_is_silent_beyond_its_read_timeout_ends_the_stream_with_an_error_event(
    upstream: Upstream, session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = upstream([head(CHUNKED), chunk(b"data: x\n\n"), HOLD])
    stream = open_stream(session.get(server.url, stream=True, timeout=(10, 1)))
    events = Decoder().feed(b"".join(stream))
    assert [event.type for event in events] == ["message", "error"]
    assert "no byte arrived" in caplog.text
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_before_its_first_event_a_broken_upstream_is_the_view_s_to_answer_for(upstream: Upstream, ask: Ask) -> None:
    from ssesync import ConnectionLost

    with pytest.raises(ConnectionLost):
        EventStream(Relay(ask(upstream([head(CHUNKED), FIN]))), first_event_timeout=TIMEOUT).open()


def test_an_event_too_large_to_hold_ends_the_stream_and_the_upstream(
    upstream: Upstream, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    def script(_: object) -> Iterator[Any]:
        yield head(CHUNKED) + chunk(b"data: x\n\n")
        while True:
            yield chunk(b"data: " + b"y" * 500 + b"\n")

    server = upstream(script)
    stream = open_stream(ask(server), max_event_size=10_000)
    events = Decoder().feed(b"".join(stream))
    assert [event.type for event in events] == ["message", "error"]
    assert "max_event_size=10,000" in caplog.text
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_a_large_event_in_small_pieces_costs_no_more_than_its_size() -> None:
    # Quadratic, this would be 100 GB to copy.
    blocks = Blocks()
    for _ in range(100_000):
        assert blocks.feed(b"data: some twenty more\n") == (b"", 0)
    data, count = blocks.feed(b"\n")
    assert (len(data), count) == (2_300_001, 1)
    assert blocks.size == 0


def test_blocks_are_counted_and_comments_are_not(upstream: Upstream, ask: Ask) -> None:
    sent = b": a\nretry: 1\ndata: x\n\nid: 1\ndata: y\ndata: z\n\n: b\n"
    stream = open_stream(ask(upstream([head(CHUNKED), chunk(sent), LAST_CHUNK])))
    assert b"".join(stream) == sent
    assert stream.stats.events == 2


LINES = st.sampled_from(
    [b"", b"", b"data: x", b"data", b":", b": c", b"id: 1", b"retry: 5", b"retry", b"re", b"event:"]
)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream of any line ends, in pieces."""
    one = draw(st.none() | LINE_ENDS)
    text = b"".join(draw(LINES) + (one or draw(LINE_ENDS)) for _ in range(draw(st.integers(0, 15))))
    text += draw(LINES)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)) | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


@given(cut_streams())
def test_every_place_where_the_stream_is_cut_can_take_a_keep_alive(pieces: list[bytes]) -> None:
    blocks = Blocks()
    passed = [data for data, _ in map(blocks.feed, pieces) if data]
    whole = b"".join(pieces)
    assert b"".join(passed) + blocks.rest() == whole
    assert blocks.size == len(blocks.rest())
    assert Decoder().feed(b"".join(data + KEEP_ALIVE for data in passed) + blocks.rest()) == Decoder().feed(whole)
    end = 0
    for data in passed:
        end += len(data)
        lines = re.split(rb"\r\n|\r|\n", whole[:end])
        assert lines.pop() == b""  # never within a line
        while lines and lines[-1].startswith((b":", b"retry:")):
            lines.pop()
        assert not lines or lines[-1] == b""  # never within an event


@given(cut_streams())
def test_every_event_passes_with_the_piece_that_ends_it(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    if b"\r" in whole.replace(b"\r\n", b"") and b"\n" in whole:
        return  # a lone CR among others could be half a line end
    blocks, before, after = Blocks(), Decoder(), Decoder()
    for number, piece in enumerate(pieces):
        if piece.endswith(b"\r") and b"\n" in whole and number + 1 < len(pieces):
            return
        assert after.feed(blocks.feed(piece)[0]) == before.feed(piece)


def test_what_our_own_streams_send_passes_at_once() -> None:
    blocks = Blocks()
    sent = [OPENING, KEEP_ALIVE, encode(Event("x", id=1)), encode(Event(retry=3)), encode(Event(comment="a\nb"))]
    assert [blocks.feed(piece)[0] for piece in sent] == sent
