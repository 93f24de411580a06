"""The client that judges the servers: it takes what is right, and nothing else."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .strict import RETRY, Answer, Broken, Strict

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


@dataclass
class Pair:
    wire: Strict
    server: socket.socket

    def sends(self, *data: bytes, end: bool = True) -> Strict:
        for each in data:
            self.server.sendall(each)
        if end:
            self.server.close()
        return self.wire


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        yield Pair(Strict(near), far)


def through(wire: Strict) -> Answer:
    answer = wire.answer()
    answer.expect(b":ok\n")
    answer.end(b"data: 1\n\n")
    return answer


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"4\r\n:ok\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"d\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 13\r\nConnection: close\r\n\r\n:ok\ndata: 1\n\n",
        HEAD + b"\r\n:ok\ndata: 1\n\n",
        b"HTTP/1.0 200 \r\nA: b\r\n\r\n:ok\ndata: 1\n\n",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_right_is_taken_however_it_comes(pair: Pair, data: bytes, at_once: bool):
    pieces = [data] if at_once else [data[at : at + 1] for at in range(len(data))]
    assert through(pair.sends(*pieces)).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"\r\n" + CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED.replace(b"\r\n", b"\n") + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED.replace(b": ", b" : ") + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED.replace(b"\r\n\r\n", b"\r\n folded\r\n\r\n") + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED.replace(b"chunked", b"chunked\r\nContent-Length: 13") + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED.replace(b"close", b"close\r\nConnection: close") + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED.replace(b"1.1", b"1.0") + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b":ok\ndata: 1\n\n",
        CHUNKED + b"0D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"D;a=b\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"D \r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"C\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"E\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\n0\r\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 2\n\n\r\n0\r\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\nA: b\r\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n0\r\n\r\n",
        CHUNKED + b"D\r\n:ok\ndata: 1\n\n\r\n0\r\n\r\n" + HEAD,
        CHUNKED + b"4\r\n:ok\n\r\n4\r\n:ok\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 13\r\nConnection: close\r\n\r\n:ok\ndata: 1\n",
        HEAD + b"Content-Length: 13\r\nConnection: close\r\n\r\n:ok\ndata: 1\n\n\n",
        HEAD + b"Content-Length: +13\r\nConnection: close\r\n\r\n:ok\ndata: 1\n\n",
        HEAD + b"\r\n:ok\ndata: 1\n\n0\r\n\r\n",
    ],
)
def test_what_is_not_is_refused(pair: Pair, data: bytes):
    with pytest.raises(Broken):
        through(pair.sends(data))


def test_what_is_refused_is_shown(pair: Pair):
    body = b":OK\n"
    with pytest.raises(Broken, match=re.escape(repr(body))):
        through(pair.sends(CHUNKED + b"4\r\n:OK\n\r\n0\r\n\r\n"))


def test_a_reset_is_no_end(pair: Pair):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        with Strict(near) as wire:
            far, _ = listener.accept()
            other = Strict(far)
            other.send(CHUNKED + b"4\r\n:ok\n\r\n0\r\n\r\n")
            answer = wire.answer()
            answer.expect(b":ok\n")
            other.rst()
            with pytest.raises(Broken, match="reset"):
                answer.end()


def test_head_has_no_body(pair: Pair):
    wire = pair.sends(CHUNKED, end=False)
    answer = wire.answer("HEAD")
    wire.silent(0.01)
    assert answer.framing == "none"
    pair.sends()
    answer.end()


def test_two_answers_on_one_connection_are_distinguished(pair: Pair):
    first = HEAD + b"Content-Length: 1\r\n\r\na"
    wire = pair.sends(first + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n" + first)
    for body in (b"a", b"b", b"a"):
        wire.answer().end(body)
    wire.finish()


@pytest.mark.parametrize("last", [b"retry: 2000\n", b"retry: 1\n"])
def test_a_reconnection_time_may_be_last_if_the_check_allows_it(pair: Pair, last: bytes):
    answer = pair.sends(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last)).answer()
    answer.end(RETRY)


@pytest.mark.parametrize("last", [b"", b"retry: 2000", b"retry: 0\n", b"retry: 2000\nretry: 2000\n", b"retry: 9\n\n"])
def test_and_nothing_else_may(pair: Pair, last: bytes):
    chunk = b"%x\r\n%s\r\n" % (len(last), last) if last else b""
    answer = pair.sends(CHUNKED + chunk + b"0\r\n\r\n").answer()
    with pytest.raises(Broken):
        answer.end(RETRY)


def test_silence_is_broken_by_a_byte_and_by_the_end(pair: Pair):
    answer = pair.sends(CHUNKED, end=False).answer()
    answer.silent(0.01)
    pair.sends(b"1", end=False)
    with pytest.raises(Broken, match="more came"):
        answer.silent(1)
    other, far = socket.socketpair()
    far.close()
    with Strict(other) as wire, pytest.raises(Broken, match="ended"):
        wire.silent(1)
