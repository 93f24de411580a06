"""What a server wrote is taken for the head of a stream when it is one; all else is refused, and never misread."""

from __future__ import annotations

import socket

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ssesync.detached.head import sniff
from ssesync.server.detaching import Head

from .strict import Answer, Strict

OPENINGS = [b":ok\n", b"retry: 1000\n", b":%s\n:ok\n" % (b" " * 300)]
NAMES = st.sampled_from(["Date", "Server", "X-Accel-Buffering", "Cache-Control", "Set-Cookie", "Vary", "A"])
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(lambda text: text.strip(" "))
CONNECTION = st.sampled_from(
    [[], ["Connection: close"], ["Connection: keep-alive", "Keep-Alive: timeout=5"], ["connection:Keep-Alive"]]
)
TYPES = st.sampled_from(["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream;charset=UTF-8"])


def write(lines: list[str], chunked: bool, body: bytes) -> bytes:
    """As servers write it."""
    lines = [*lines, "Transfer-Encoding: chunked"] if chunked else lines
    framed = b"%x\r\n%s\r\n" % (len(body), body) if chunked else body
    return "\r\n".join([*lines, "", ""]).encode() + framed


def read(head: Head) -> Answer:
    """The answer as the client gets it, if its stream ends there."""
    near, far = socket.socketpair()
    with Strict(near) as wire:
        far.sendall(head.wire + (b"0\r\n\r\n" if head.chunked else b""))
        far.close()
        answer = wire.answer()
        answer.body = answer.rest()
        wire.finish()
        return answer


def check(head: Head, opening: bytes) -> Answer:
    """Fail unless a client reads from it what the library takes it for."""
    answer = read(head)
    assert answer.status == 200
    assert answer.framing == ("chunked" if head.chunked else "raw")
    assert (answer.header("content-type") or "").lower().partition(";")[0] == "text/event-stream"
    assert answer.header("content-encoding") in (None, "identity")
    assert answer.all("connection") == ["close"]
    assert answer.body == opening
    return answer


@st.composite
def heads(draw: st.DrawFn) -> tuple[list[str], bool, bytes]:
    lines = [f"{name}: {value}" for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))]
    # Once each, as the strict client has it.
    lines = list({line.partition(":")[0]: line for line in lines}.values())
    lines += [f"Content-Type: {draw(TYPES)}", *draw(CONNECTION)]
    if draw(st.booleans()):
        lines.append("Content-Encoding: identity")
    chunked = draw(st.booleans())
    version = "HTTP/1.1" if chunked else draw(st.sampled_from(["HTTP/1.1", "HTTP/1.0"]))
    status = draw(st.sampled_from([f"{version} 200 OK", f"{version} 200 ", f"{version} 200 Whatever it is"]))
    return [status, *draw(st.permutations(lines))], chunked, draw(st.sampled_from(OPENINGS))


@given(heads())
def test_a_head_is_the_servers_own_but_for_the_connection(head: tuple[list[str], bool, bytes]):
    lines, chunked, opening = head
    sniffed = sniff(write(lines, chunked, opening), opening)
    assert sniffed is not None
    assert sniffed.chunked is chunked
    answer = check(sniffed, opening)
    written = [tuple(line.split(":", 1)) for line in lines[1:]]
    kept = [(name.lower(), value.strip(" ")) for name, value in written]
    kept = [pair for pair in kept if pair[0] not in ("connection", "keep-alive")]
    own = [pair for pair in answer.headers if pair[0] not in ("connection", "transfer-encoding")]
    assert own == kept


@given(heads(), st.data())
def test_half_of_it_is_refused(head: tuple[list[str], bool, bytes], data: st.DataObject):
    lines, chunked, opening = head
    written = write(lines, chunked, opening)
    cut = data.draw(st.integers(0, len(written) - 1))
    assert sniff(written[:cut], opening) is None


@given(heads(), st.binary(min_size=1, max_size=20))
def test_more_of_it_is_refused(head: tuple[list[str], bool, bytes], more: bytes):
    lines, chunked, opening = head
    written = write(lines, chunked, opening)
    assert sniff(written + more, opening) is None
    assert sniff(more + written, opening) is None or more[:1].isalpha()


@given(heads(), st.data())
def test_whatever_a_change_makes_of_it_is_refused_or_still_the_same(
    head: tuple[list[str], bool, bytes], data: st.DataObject
):
    """A byte more, less or other, anywhere: in the status, between two headers, in a size, in the opening."""
    lines, chunked, opening = head
    written = write(lines, chunked, opening)
    at = data.draw(st.integers(0, len(written) - 1))
    new = data.draw(
        st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b":", b"0", b"1", b"a", b"X", b";"])
    )
    changed = written[:at] + new + written[at + data.draw(st.sampled_from([0, 1, 2])) :]
    assume(changed != written)
    sniffed = sniff(changed, opening)
    if sniffed is not None:
        check(sniffed, opening)


@given(heads(), st.data())
def test_a_header_that_says_something_else_of_the_body_is_refused(
    head: tuple[list[str], bool, bytes], data: st.DataObject
):
    lines, chunked, opening = head
    other = data.draw(
        st.sampled_from(
            [
                "Content-Length: 4",
                "content-length:4",
                "Content-Length: 0",
                "Content-Encoding: gzip",
                "content-encoding: br",
                "Content-Encoding: identity, gzip",
                "Transfer-Encoding: gzip",
                "Transfer-Encoding: gzip, chunked",
                "transfer-encoding: identity",
                "Content-Type: text/html",
                "Content-Type: text/event-stream",
                " folded",
                "\tfolded",
                "no header",
                "Space : before the colon",
                ": no name",
                "",
                "Bare: line\nfeed",
                "Bare: carriage\rreturn",
            ]
        )
    )
    at = data.draw(st.integers(1, len(lines)))
    assert sniff(write([*lines[:at], other, *lines[at:]], chunked, opening), opening) is None


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    "status",
    [
        "HTTP/1.1 404 Not Found", "HTTP/1.1 204 No Content", "HTTP/1.1 206 Partial Content", "HTTP/1.1 100 Continue",
        "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/1.1  200 OK", "HTTP/1.2 200 OK", "HTTP/2 200 OK", "HTTP/0.9 200 OK",
        "http/1.1 200 OK", "HTTP/1.1 200OK", " HTTP/1.1 200 OK", "", "GET / HTTP/1.1", "HTTP/1.1 200\tOK",
    ],
)  # fmt: skip
def test_a_status_that_is_not_200_is_refused(status: str, chunked: bool):
    assert sniff(write([status, "Content-Type: text/event-stream"], chunked, b":ok\n"), b":ok\n") is None


@pytest.mark.parametrize(
    "media", ["", "text/html", "text/plain", "text/event-streams", "text/event-stream-like", "x text/event-stream"]
)
def test_a_type_that_is_no_event_streams_is_refused(media: str):
    assert sniff(write(["HTTP/1.1 200 OK", f"Content-Type: {media}"], False, b":ok\n"), b":ok\n") is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"4\r\n", b"4\r\n:ok\n", b"4\r\n:ok\n\r", b"4\r\n:ok\n\n", b"4\n:ok\n\r\n", b"4;x\r\n:ok\n\r\n",
        b" 4\r\n:ok\n\r\n", b"4 \r\n:ok\n\r\n", b"+4\r\n:ok\n\r\n", b"0x4\r\n:ok\n\r\n", b"5\r\n:ok\n\r\n",
        b"3\r\n:ok\r\n1\r\n\n\r\n", b"4\r\n:ok\n\r\n0\r\n\r\n", b"4\r\n:ok\n\r\n4\r\n:ok\n\r\n", b"4\r\n:OK\n\r\n",
        b"0\r\n\r\n", b":ok\n", b"-4\r\n:ok\n\r\n", b"4\r\n\r\n:ok\n", b"4_\r\n:ok\n\r\n", b"44\r\n:ok\n\r\n",
    ],
)  # fmt: skip
def test_a_chunk_that_is_not_exactly_the_opening_is_refused(body: bytes):
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
    assert sniff(write(lines, False, body), b":ok\n") is None


@given(st.binary(max_size=300))
@example(b"\r\n\r\n:ok\n")
@example(b"HTTP/1.1 200 OK\r\n\r\n:ok\n")
def test_anything_is_refused(data: bytes):
    assert sniff(data, b":ok\n") is None


def test_an_answer_before_the_answer_is_refused():
    written = write(["HTTP/1.1 200 OK", "Content-Type: text/event-stream"], False, b":ok\n")
    assert sniff(written, b":ok\n") is not None
    assert sniff(b"HTTP/1.1 100 Continue\r\n\r\n" + written, b":ok\n") is None
    assert sniff(written + written, b":ok\n") is None
