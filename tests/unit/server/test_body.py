"""Reading a body ahead. With the servers themselves: ``tests/live/detached/test_bodies.py``."""

from __future__ import annotations

import errno
import io
import random
import socket
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.wsgi import LimitedStream as DjangoStream
from gunicorn.http import body as readers
from gunicorn.http.unreader import SocketUnreader
from werkzeug.wrappers import Request

from ssesync import Settings
from ssesync.server import body as module
from ssesync.server.body import DJANGO_STREAM, ReadAhead, secure_body

#: Nothing waits for longer.
WAIT = 0.3
#: As long as what does not come is waited for.
SHORT = 0.05


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and its server."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


def make(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def with_length(server: socket.socket, length: int, held: bytes = b"") -> Any:
    """gunicorn's reader of a body, of which its parser has read some with the head."""
    unreader = SocketUnreader(server)
    unreader.unread(held)
    return readers.LengthReader(unreader, length)


def in_chunks(server: socket.socket, held: bytes = b"") -> Any:
    unreader = SocketUnreader(server)
    unreader.unread(held)
    request = types.SimpleNamespace(unreader=unreader, trailers=[], parse_headers=lambda data, from_trailer: [])
    return readers.ChunkedReader(request, unreader)


def secure(reader: Any, most: int = 1_000_000, wait: float = WAIT) -> bool:
    return module._secure_in_gunicorn(reader, most, time.monotonic() + wait)


def read_all(reader: Any) -> bytes:
    return readers.Body(reader).read()


def test_a_request_without_a_body_is_secure() -> None:
    for environ in ({}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "0"}):
        assert secure_body(environ, Settings())


def test_a_body_that_a_middleware_has_in_memory_is_secure() -> None:
    with tempfile.SpooledTemporaryFile() as file:
        for body in (io.BytesIO(b"1"), file):
            assert secure_body({"CONTENT_LENGTH": "1", "wsgi.input": body}, Settings())


def test_a_body_of_an_unknown_class_is_not_secure() -> None:
    for body in (None, object(), io.StringIO()):
        for environ in ({"CONTENT_LENGTH": "1"}, {"CONTENT_LENGTH": "no"}, {"HTTP_TRANSFER_ENCODING": "chunked"}):
            assert not secure_body({**environ, "wsgi.input": body}, Settings())


@pytest.mark.parametrize("held", [0, 1, 50, 100])
def test_what_is_missing_of_a_body_is_read_ahead(pair: tuple[socket.socket, socket.socket], held: int) -> None:
    client, server = pair
    body = make(100)
    reader = with_length(server, 100, body[:held])
    client.sendall(body[held:] + b"GET / HTTP/1.1")
    assert secure(reader)
    server.close()  # as after a hand-over
    assert read_all(reader) == body


def test_of_the_next_request_nothing_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.sendall(b"bodyGET")
    reader = with_length(server, 4)
    assert secure(reader)
    assert read_all(reader) == b"body"
    assert reader.unreader.sock.recv(10) == b"GET"


@pytest.mark.parametrize("size", [1_000, 3_000_000])
def test_a_body_that_does_not_come_is_left_as_it_is(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    client, server = pair
    body = make(size)
    reader = with_length(server, size)
    client.sendall(body[:500])
    assert not secure(reader, 10_000_000, SHORT)
    client.sendall(body[500:1000])
    assert not secure(reader, 10_000_000, SHORT)  # another stream of the same request
    assert reader.read(1000) == body[:1000]


def test_a_body_that_is_too_large_is_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    reader = with_length(server, 2000)
    client.sendall(make(2000))
    assert not secure(reader, 1999)
    assert reader.unreader.sock is server
    assert read_all(reader) == make(2000)


def test_a_client_that_has_left_is_none_to_wait_for(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    reader = with_length(server, 100)
    client.sendall(b"half")
    client.close()
    assert not secure(reader, wait=60)
    assert reader.read(4) == b"half"


CHUNKED = b"3\r\nabc\r\n5;name=value\r\n12345\r\n0\r\nX-Trailer: 1\r\n\r\n"


@pytest.mark.parametrize("held", range(0, len(CHUNKED) + 1, 3))
def test_a_body_in_chunks_is_read_ahead_wherever_it_was_cut(
    pair: tuple[socket.socket, socket.socket], held: int
) -> None:
    client, server = pair
    reader = in_chunks(server, CHUNKED[:held])
    client.sendall(CHUNKED[held:])
    assert secure(reader)
    server.close()
    assert read_all(reader) == b"abc12345"


def test_the_end_of_chunks_is_found_at_every_cut() -> None:
    for cut in range(len(CHUNKED)):
        framing = module._Chunks()
        assert not framing.feed(CHUNKED[:cut])
        assert framing.feed(CHUNKED[cut:])
    framing = module._Chunks()
    assert [framing.feed(bytes([each])) for each in CHUNKED] == [False] * (len(CHUNKED) - 1) + [True]


@pytest.mark.parametrize("data", [b"x\r\n", b"-1\r\n", b"\r\n", b"1" * 20_000])
def test_chunks_that_are_malformed_stay_where_they_are(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    client, server = pair
    with pytest.raises(ValueError, match=r".*"):
        module._Chunks().feed(data)
    client.sendall(data)
    reader = in_chunks(server)
    assert not secure(reader)
    assert reader.req.unreader.sock.recv(len(data)) == data[:1000] or len(data) > 1000


def test_chunks_that_were_read_in_part_are_not_secure_until_they_were_read(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    client.sendall(CHUNKED)
    reader = in_chunks(server)
    assert reader.read(1) == b"a"
    assert not secure(reader)
    assert read_all(reader) == b"bc12345"
    assert secure(reader)


def test_chunks_without_an_end_are_read_up_to_the_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    chunk = b"1000\r\n" + make(4096) + b"\r\n"
    client.sendall(chunk * 10)
    reader = in_chunks(server)
    assert not secure(reader, 8000, wait=60)
    client.sendall(b"0\r\n\r\n")
    assert read_all(reader) == make(4096) * 10


def test_what_does_not_fit_into_the_file_is_not_lost(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = pair

    class Full(io.BytesIO):
        """A disk without room behind 10 bytes."""

        def write(self, data: Any) -> int:
            super().write(data[: 10 - self.tell()])
            if self.tell() == 10:
                raise OSError(errno.ENOSPC, "no space")
            return len(data)

    ahead = ReadAhead(server)
    ahead._file.close()
    ahead._file = Full()
    client.sendall(b"12345")
    assert not ahead.fetch(module._Length(20), 100, time.monotonic() + SHORT)
    ahead._file.seek(0, io.SEEK_END)
    client.sendall(b"67890abcde")
    assert not ahead.fetch(module._Length(15), 100, time.monotonic() + WAIT)
    client.sendall(b"fghij")
    data = b""
    while len(data) < 20:
        data += ahead.recv(3)
    assert data == b"1234567890abcdefghij"


def test_the_rest_of_the_socket_is_the_sockets(pair: tuple[socket.socket, socket.socket]) -> None:
    _, server = pair
    ahead = ReadAhead(server)
    assert ahead.fileno() == server.fileno()
    assert ahead.gettimeout() is None


@pytest.fixture
def file(pair: tuple[socket.socket, socket.socket]) -> Iterator[io.BufferedReader]:
    """What Werkzeug's server, and wsgiref, give as ``wsgi.input``."""
    with pair[1].makefile("rb") as file:
        yield file


def environ_of(file: Any, length: int, **more: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(length), "wsgi.input": file, **more}


@pytest.mark.parametrize("before", [0, 10, 100])
def test_a_small_body_is_given_to_what_werkzeugs_request_reads_from(
    pair: tuple[socket.socket, socket.socket], file: Any, before: int
) -> None:
    body = make(100)
    pair[0].sendall(body + b"more")
    request = Request(environ_of(file, 100))
    assert not before or request.stream.read(before) == body[:before]
    assert secure_body(request.environ, Settings(), WAIT)
    file.close()
    assert request.stream.read() == body[before:]


def test_a_small_body_is_given_to_what_djangos_request_reads_from(
    pair: tuple[socket.socket, socket.socket], file: Any
) -> None:
    body = make(100)
    pair[0].sendall(body)
    stream = DjangoStream(file, 100)
    assert stream.read(10) == body[:10]
    environ = environ_of(file, 100, **{DJANGO_STREAM: stream})
    assert secure_body(environ, Settings(), WAIT)
    file.close()
    assert stream.readline() + stream.read() == body[10:]


def test_of_a_body_that_has_not_come_nothing_is_read(pair: tuple[socket.socket, socket.socket], file: Any) -> None:
    body = make(100)
    pair[0].sendall(body[:99])
    request = Request(environ_of(file, 100))
    assert not secure_body(request.environ, Settings(), SHORT)
    assert pair[1].getblocking()
    pair[0].sendall(body[99:])
    assert file.read(100) == body


def test_a_body_that_an_unknown_reader_has_read_is_not_secure(
    pair: tuple[socket.socket, socket.socket], file: Any
) -> None:
    pair[0].sendall(make(100))
    assert not secure_body(environ_of(file, 100), Settings(), WAIT)


def test_runserver_finds_nothing_to_read_at_the_responses_end(
    pair: tuple[socket.socket, socket.socket], file: Any
) -> None:
    body = make(100)
    pair[0].sendall(body)
    servers_own = DjangoStream(file, 100)
    stream = DjangoStream(servers_own, 100)
    assert secure_body(environ_of(servers_own, 100, **{DJANGO_STREAM: stream}), Settings(), WAIT)
    assert servers_own.read() == b""
    assert stream.read() == body


def test_on_uwsgi_no_producer_outlives_the_response_unless_the_environ_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for options, expected in (
        ({}, False),
        ({"wsgi-env-behaviour": b"holy"}, True),
        ({"wsgi-env-behavior": b"holy"}, True),
    ):
        monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt=options))
        assert secure_body({"uwsgi.version": b"2"}, Settings()) is expected
