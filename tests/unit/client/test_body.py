"""Chunked bodies are taken apart byte by byte the same, however the bytes arrive and by whichever way they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, pairwise
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from ssesync.client.body import Body, _ChunkedReader
from ssesync.errors import ConnectionLost, ReadError
from ssesync.testing import CHUNKED, FIN, HOLD, LAST_CHUNK, FakeSSEServer, chunk, chunked, head
from tests.profiles import times

from ...cases import each_case

MANY = [b"data: %d\n\n" % number for number in range(40)]
CRLF_EVENTS = [b"data: %d\r\n\r\n" % number for number in range(40)]
# A body as it travels, and what it holds.
BODIES = {
    "empty": (LAST_CHUNK, b""),
    "one chunk": (chunked(b"data: x\n\n"), b"data: x\n\n"),
    "two chunks": (chunked(b"data: x\n", b"\n"), b"data: x\n\n"),
    "size in upper case": (b"1F\r\n" + b"x" * 31 + b"\r\n" + LAST_CHUNK, b"x" * 31),
    "size in lower case": (b"1f\r\n" + b"x" * 31 + b"\r\n" + LAST_CHUNK, b"x" * 31),
    "size with leading zeros": (b"0000001f\r\n" + b"x" * 31 + b"\r\n000\r\n\r\n", b"x" * 31),
    "size with a blank behind it": (b"3 \r\nabc\r\n0 \r\n\r\n", b"abc"),
    "extension": (b"3;name=value\r\nabc\r\n0;last\r\n\r\n", b"abc"),
    "extension with a quoted value": (b'3 ; name="; 5"\r\nabc\r\n0\r\n\r\n', b"abc"),
    "extensions among many chunks": (b"3;a\r\nabc\r\n3\r\ndef\r\n" * 10 + LAST_CHUNK, b"abcdef" * 10),
    "trailers": (b"3\r\nabc\r\n0\r\nExpires: never\r\nX: 0\r\n\r\n", b"abc"),
    "many chunks": (chunked(*MANY), b"".join(MANY)),
    "many chunks that hold line ends": (chunked(*CRLF_EVENTS), b"".join(CRLF_EVENTS)),
    "line ends among many chunks": (
        chunked(*MANY[:20], b"\r\n", *MANY[20:]),
        b"".join([*MANY[:20], b"\r\n", *MANY[20:]]),
    ),
    "chunks that are line ends": (chunked(*[b"\r\n", b"\r", b"\n"] * 10), b"\r\n\r\n" * 10),
    "data that looks like chunks": (chunked(*[chunk(b"ab"), LAST_CHUNK] * 6), (chunk(b"ab") + LAST_CHUNK) * 6),
    "data that looks like a size": (chunked(*[b"5\r\n", b"a"] * 12), b"5\r\na" * 12),
    "large and small chunks": (
        chunked(b"a", b"b" * 300, b"c", b"d" * 17, b"e" * 16),
        b"a" + b"b" * 300 + b"c" + b"d" * 17 + b"e" * 16,
    ),
}
MALFORMED = {
    "no size": b"\r\nabc\r\n",
    "a sign": b"+3\r\nabc\r\n",
    "a minus": b"-3\r\nabc\r\n",
    "a prefix": b"0x3\r\nabc\r\n",
    "an underscore": b"0_3\r\nabc\r\n",
    "no hexadecimal digit": b"g\r\nabc\r\n",
    "a digit that is not ASCII": "٣\r\nabc\r\n".encode(),
    "a blank before it": b" 3 3\r\nabc\r\n",
    "an extension alone": b";a\r\nabc\r\n",
    "data instead of a size": b"data: x\r\n\r\n",
    "data longer than the size": b"3\r\nabcd\r\n",
    "data shorter than the size": b"4\r\nabc\r\n0\r\n\r\n",
    "a wrong line end": b"3\r\nabc\n\r3\r\nabc\r\n",
}


class FakeRaw:
    """Stands for the urllib3 response: notes whether its connection goes back to the pool."""

    def __init__(self) -> None:
        self.fate: list[str] = []
        self._original_response = self

    def close(self) -> None:
        self.fate.append("closed")

    def release_conn(self) -> None:
        self.fate.append("released")


class Pieces:
    """Stands for http.client's reader: each read gives the next piece."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read1(self, size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def dechunk(pieces: Iterable[bytes]) -> tuple[bytes, list[str]]:
    """All that the pieces hold, and what became of the connection."""
    raw = FakeRaw()
    chunks = _ChunkedReader(raw, Pieces(pieces))
    received = b"".join(iter(chunks.read, b""))
    return received, raw.fate


def cut(data: bytes, *places: int) -> list[bytes]:
    edges = [0, *places, len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, in two at every place, in three at every two places of a short one."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for count in (1, 2) if len(data) < 120 else (1,):
        for places in combinations(range(1, len(data)), count):
            yield cut(data, *places)


@each_case("name", BODIES)
def test_a_chunked_body_is_the_same_at_every_cut(name: str) -> None:
    wire, body = BODIES[name]
    for pieces in every_cut(wire):
        assert dechunk(pieces) == (body, ["closed", "released"]), pieces


@pytest.mark.slow
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_chunk_is_refused_at_every_cut(name: str) -> None:
    for before in (b"", chunk(b"abc"), chunk(b"abc") * 10):
        for pieces in every_cut(before + MALFORMED[name] + chunk(b"abc") * 10):
            with pytest.raises(ReadError) as caught:
                dechunk(pieces)
            assert not isinstance(caught.value, ConnectionLost), pieces


@each_case("name", MALFORMED)
def test_what_came_before_a_malformed_chunk_is_no_more_than_what_was_sent(name: str) -> None:
    chunks = _ChunkedReader(FakeRaw(), Pieces([chunk(b"abc"), MALFORMED[name]]))
    assert chunks.read() == b"abc"
    with pytest.raises(ReadError):
        list(iter(chunks.read, b""))


@each_case("name", BODIES)
def test_a_body_that_ends_before_its_last_chunk_is_a_lost_connection_at_every_place(name: str) -> None:
    wire, body = BODIES[name]
    for end in range(len(wire)):
        chunks = _ChunkedReader(FakeRaw(), Pieces([wire[:end]]))
        received: list[bytes] = []
        with pytest.raises(ConnectionLost):
            received.extend(iter(chunks.read, b""))
        assert body.startswith(b"".join(received))


def test_bytes_after_the_end_keep_the_connection_out_of_its_pool_at_every_cut() -> None:
    wire = chunked(b"abc", b"def") + b"HTTP/1.1 200 OK\r\n"
    end = len(wire) - len(b"HTTP/1.1 200 OK\r\n")
    for pieces in every_cut(wire):
        body, fate = dechunk(pieces)
        assert body == b"abcdef"
        # Where the cut falls on the end itself, the rest is still unread, and the pool finds it there.
        whole = any(sum(map(len, pieces[:count])) == end for count in range(len(pieces)))
        assert fate == (["closed", "released"] if whole else [])


def test_a_chunk_size_line_without_an_end_is_refused() -> None:
    with pytest.raises(ReadError, match="too long"):
        dechunk([b"3;" + b"x" * 1000] * 100)


def test_a_large_size_does_not_wait_for_all_of_it() -> None:
    chunks = _ChunkedReader(FakeRaw(), Pieces([b"F" * 40 + b"\r\nabc", b"def"]))
    assert chunks.read() == b"abc"
    assert chunks.read() == b"def"


def test_line_ends_in_the_data_do_not_make_each_chunk_cost_as_much_as_all() -> None:
    counting = CountingBytes(chunked(*[b"data: x\r\n\r\n"] * 4000))
    chunks = _ChunkedReader(FakeRaw(), Pieces([counting]))
    assert chunks.read() == b"data: x\r\n\r\n" * 4000
    assert counting.copied < 4 * len(counting)


class CountingBytes(bytes):
    """Counts the bytes that slices of it copy."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        piece = super().__getitem__(key)
        self.copied += len(piece)
        return piece


@times(3)
@given(
    st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"3\r\n"]), max_size=40),
    st.data(),
)
def test_any_payload_in_any_chunks_at_any_cuts_comes_out_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    extensions = st.sampled_from([b"", b"", b"", b";a", b" ; a=b", b"  "])
    zeros = st.sampled_from([b"", b"", b"0", b"00"])
    wire = b""
    for piece in pieces:
        size = data.draw(st.sampled_from([b"%x", b"%X"])) % len(piece)
        wire += data.draw(zeros) + size + data.draw(extensions) + b"\r\n" + piece + b"\r\n"
    wire += LAST_CHUNK
    places = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12)))
    assert dechunk(cut(wire, *places))[0] == b"".join(pieces)


@pytest.fixture(params=["fast path", "without it"])
def path(
    request: pytest.FixtureRequest, without_fast_path: Callable[[requests.Response], requests.Response]
) -> Callable[[requests.Response], requests.Response]:
    return without_fast_path if request.param == "without it" else lambda response: response


def paced(wire: bytes, places: Iterable[int], go: threading.Semaphore) -> list[bytes | threading.Semaphore]:
    steps: list[bytes | threading.Semaphore] = []
    for piece in cut(wire, *places):
        steps += [piece, go]
    return steps


@pytest.mark.parametrize("name", BODIES)
def test_both_ways_read_the_same_from_a_socket(
    name: str,
    path: Callable[[requests.Response], requests.Response],
    serve_both: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
) -> None:
    wire, expected = BODIES[name]
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))], cut(wire, len(wire) // 2)):
        server = serve_both([head(CHUNKED), *pieces])
        body = Body(path(get(server)))
        assert b"".join(body) == expected


def test_a_chunk_that_is_cut_anywhere_is_read_from_a_socket_as_it_arrives(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    wire, expected = chunked(b"data: x\r\n", b"\r\n"), b"data: x\r\n\r\n"
    for at in range(1, len(wire)):
        go = threading.Semaphore(0)
        server = serve([head(CHUNKED), *paced(wire, [at], go)])
        body = Body(get(server))
        received = b""
        go.release()  # nothing need come of the first piece: half a chunk-size line holds no data
        while data := body.read():
            received += data
        go.release()
        assert received == expected


@each_case("name", MALFORMED)
def test_both_ways_refuse_a_malformed_chunk_or_find_the_connection_lost(
    name: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(b"abc"), MALFORMED[name], FIN])
    body = Body(get(server))
    with pytest.raises(ReadError):
        list(body)
    assert body.read() == b""


def test_without_the_fast_path_a_malformed_size_is_an_error_too(
    serve: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
    without_fast_path: Callable[[requests.Response], requests.Response],
) -> None:
    body = Body(without_fast_path(get(serve([head(CHUNKED), chunk(b"abc"), b"xyz\r\nabc\r\n", HOLD]))))
    assert body.read() == b"abc"
    with pytest.raises(ReadError):
        body.read()


def test_a_missing_last_chunk_is_a_lost_connection(
    path: Callable[[requests.Response], requests.Response],
    serve_both: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
) -> None:
    for wire in (chunk(b"abc"), chunk(b"abc") + b"5\r\nab", chunk(b"abc")[:-2]):
        body = Body(path(get(serve_both([head(CHUNKED), wire, FIN]))))
        with pytest.raises(ConnectionLost):
            list(body)
        assert body.read() == b""
