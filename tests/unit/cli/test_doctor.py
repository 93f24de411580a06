"""``doctor``: against real servers, well and ill, and bounded whatever a server does."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync.server.framing import make_preamble
from ssesync.settings import Settings
from ssesync.testing import CHUNKED, FIN, HOLD, Answer, FakeSSEServer, Pause, RecordedRequest, chunk, head

from ...cases import each_case
from .runs import doctor, run

WELL = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def problems(findings: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, (level, _) in findings.items() if level == "problem"}


def as_browsers_ask(request: RecordedRequest) -> bool:
    return "gzip" in request.headers["accept-encoding"]


def test_a_stream_as_it_should_be_has_no_problem(server: FakeSSEServer):
    answer = server.answer(when=as_browsers_ask, headers=WELL)
    answer.comment("ok").retry(2000).event("a", id=1).event("b", id=2)
    # It ends when the doctor has seen enough of the others: of the second stream, the one that resumes, and HEAD.
    for _ in range(3):
        answer.wait_for(server.client_left)
    server.answer(when=lambda request: request.last_event_id, headers=WELL).event("b", id=2).stall()
    server.answer(times=None, headers=WELL).event("a", id=1).stall()
    report, findings, status = doctor(server.url, "--seconds", "20", "--head")
    assert (status, problems(findings)) == (0, set())
    assert {name for name, (level, _) in findings.items() if level == "advice"} == set()
    assert findings["Event IDs"] == ("ok", "2 of 2 events; asked to resume after '1', the stream does")
    assert findings["HEAD"] == ("ok", "200 OK")
    assert findings["retry:"] == ("ok", "2,000 ms")
    assert findings["Framing"] == ("ok", "chunked")
    assert (report["events"], report["comments"], report["status"]) == (2, 1, 200)
    request_headers = server.requests[0].headers
    assert request_headers["accept"] == "text/event-stream"
    assert {each.headers["accept-encoding"] for each in server.requests} == {"gzip, deflate, br, zstd", "identity"}


def test_it_is_written_for_people_too(server: FakeSSEServer):
    server.answer(when=as_browsers_ask).event("a").wait_for(server.client_left)
    server.answer().event("a").stall()
    done = run("doctor", server.url, "--seconds", "20")
    assert done.returncode == 0
    assert re.search(r"^advice +Cache-Control +none\n +→ Nothing forbids", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.endswith("B.\n")
    assert all(len(line) <= 80 and line == line.rstrip() for line in done.stdout.splitlines())


ILL: dict[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "a length": (
        {"framing": "length", "body": "data: a\n\n"},
        {"Framing": ("problem", "Content-Length: 9")},
    ),
    "the end of the connection": (
        {"framing": "http/1.0", "body": "data: a\n\n"},
        {"Framing": ("advice", "HTTP/1.0 without chunks: the end of the connection is the end of the stream")},
    ),
    "another charset": (
        {"content_type": "text/event-stream; charset=latin-1"},
        {"Media type": ("problem", "text/event-stream; charset=latin-1")},
    ),
    "a cache": (
        {"headers": {"Cache-Control": "public, max-age=60", "Age": "12"}},
        {"Cache-Control": ("problem", "public, max-age=60; the answer comes out of a cache")},
    ),
    "headers of the connection": (
        {"headers": [("Connection", "keep-alive"), ("Connection", "close"), ("Upgrade", "h2c")]},
        {"Hop-by-hop": ("problem", "sent twice: Connection")},
    ),
    "bytes that are not UTF-8": (
        {"body": b"data: ok\n\ndata: \xe9t\xe9\n\n"},
        {"UTF-8": ("problem", "byte 16 is none")},
    ),
    "a byte order mark": (
        {"body": b"\xef\xbb\xbfdata: ok\n\n"},
        {"UTF-8": ("advice", "begins with a byte order mark")},
    ),
    "keep-alives as events": (
        {"body": "event: ping\ndata: {}\n\ndata: a\n\n"},
        {"Keep-alive": ("advice", "1 event with 'event: ping'"), "Event IDs": ("advice", "none")},
    ),
    "blank lines behind comments": (
        {"body": ": ping\n\ndata: a\n\n: ping\n\n"},
        {"Comments": ("advice", "2 comments, 2 with a blank line behind")},
    ),
    "an end in an event": (
        {"body": "data: a\n\ndata: b\n"},
        {"End": ("problem", "ended after")},
    ),
    "long events": (
        {"body": f"data: {'x' * 70_000}\n\n"},
        {"Events": ("advice", "1: 1 message; the longest has 70.0 kB")},
    ),
    "no body": ({}, {"First byte": ("problem", "headers after")}),
    "a reconnection time that is none": ({"body": "retry: 10\ndata: a\n\n"}, {"retry:": ("advice", "10 ms")}),
}


def test_a_stream_needs_no_reconnection_time(server: FakeSSEServer):
    preamble = make_preamble(Settings()).decode()  # of the library's default
    assert "retry:" not in preamble
    server.answer(times=None, body=f"{preamble}data: a\n\n")
    assert doctor(server.url, "--seconds", "5")[1]["retry:"] == ("ok", "none: browsers wait for 3 to 5 s")


@pytest.mark.parametrize("name", ILL)
def test_what_is_wrong_is_found(server: FakeSSEServer, name: str):
    answer, expected = ILL[name]
    server.answer(times=None, **answer)
    _, findings, status = doctor(server.url, "--seconds", "5")
    for check, (level, seen) in expected.items():
        assert findings[check][0] == level
        assert findings[check][1].startswith(seen)
    assert status == (1 if problems(findings) else 0)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ({"status": 404, "body": "\x1b[2J no"}, "404 Not Found, text/plain; charset=utf-8: \\x1b[2J no"),
        ({"status": 204}, "204 No Content, without a media type"),
        ({"content_type": "text/html", "body": "<p>"}, "text/html"),
    ],
)
def test_an_answer_that_is_no_stream_is_a_problem(server: FakeSSEServer, answer: dict[str, Any], seen: str):
    server.answer(**answer)
    _, findings, status = doctor(server.url, "--seconds", "5")
    assert (list(findings.values()), status) == ([("problem", seen)], 1)


def test_a_stream_that_begins_again_for_a_resuming_client_is_a_problem(server: FakeSSEServer):
    answer = server.answer(when=as_browsers_ask).event("a", id=1).event("b", id=2)
    server.answer(times=None).event("a", id=1).stall()
    answer.wait_for(server.client_left).wait_for(server.client_left)
    _, findings, _ = doctor(server.url, "--seconds", "20")
    seen = "2 of 2 events; asked to resume after '1', the stream begins again with '1'"
    assert findings["Event IDs"] == ("problem", seen)


def test_redirects_are_followed_without_taking_secrets_to_another_host(server: FakeSSEServer):
    with FakeSSEServer() as other:
        other.answer(when=as_browsers_ask).event("a").wait_for(other.client_left)
        other.answer().event("a").stall()
        server.answer(302, times=None, location=other.url)
        _, findings, _ = doctor(server.url, "--seconds", "20", "-H", "Authorization: secret", "-H", "X-Other: 1")
        assert findings["Answer"] == ("advice", f"HTTP/1.1 200 OK after 1 redirect to {other.url}")
        assert server.requests[0].headers["authorization"] == "secret"
        assert "authorization" not in other.requests[0].headers
        assert other.requests[0].headers["x-other"] == "1"


@pytest.mark.slow
def test_compression_that_holds_the_answer_back_is_distinguished_from_other_buffers():
    def script(request: RecordedRequest) -> Iterator[Any]:
        if "gzip" not in request.headers["accept-encoding"]:
            yield head(CHUNKED) + chunk(b"data: a\n\n")
        yield HOLD

    with FakeSSEServer(script) as server:
        _, findings, status = doctor(server.url, "--seconds", "2")
    assert status == 1
    assert "Compression" in problems(findings)
    assert "no answer at all in" in findings["Compression"][1]


@pytest.mark.slow
def test_a_server_that_serves_one_stream_at_a_time_is_found():
    def script(request: RecordedRequest) -> Iterator[Any]:
        if request.connection == 0:
            yield head(CHUNKED) + chunk(b"data: a\n\n")
        yield HOLD

    with FakeSSEServer(script) as server:
        _, findings, status = doctor(server.url, "--seconds", "2")
    assert status == 1
    assert "Second stream" in problems(findings)


def test_an_address_where_nothing_listens_has_a_status_of_its_own():
    _, findings, status = doctor("127.0.0.1:1", "--seconds", "5")
    assert (findings, status) == ({"Answer": ("problem", "none: Connection refused")}, 3)


def forever(*pieces: bytes, pause: float) -> Iterator[Any]:
    for piece in itertools.chain(pieces[:-1], itertools.repeat(pieces[-1])):
        yield piece
        yield Pause(pause)


NASTY = {
    "silence": lambda: iter([HOLD]),
    "headers without end": lambda: forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.02),
    "an empty body": lambda: iter([head(CHUNKED), HOLD]),
    "a body that trickles": lambda: forever(head(CHUNKED), chunk(b"x"), pause=0.01),
    "a flood": lambda: forever(head(CHUNKED), chunk(b"data: flood\n\n" * 8000), pause=0),
    "a flood without an event": lambda: forever(head(CHUNKED), chunk(b"x" * 100_000), pause=0),
    "redirects without end": lambda: iter([head("Location: /again", status="302 Found", content_type=None), FIN]),
    "a redirect with a flood": lambda: forever(
        head(CHUNKED, "Location: /on", status="302 Found"), chunk(b"x" * 100_000), pause=0
    ),
    "no HTTP": lambda: iter([b"220 mail.example.com ESMTP\r\n", FIN]),
    "the end": lambda: iter([FIN]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NASTY)
def test_it_is_bounded_whatever_the_server_does(name: str):
    server = FakeSSEServer(lambda request: NASTY[name]()).start()
    try:
        began = time.monotonic()
        at_once = name in ("no HTTP", "the end")
        report, _, status = doctor(server.url, "--seconds", "90" if at_once else "0.2")
        assert time.monotonic() - began < 60
        assert report["bytes"] < 20_000_000
        assert status == 3 if at_once else status in (0, 1)
    finally:
        server.close(quiet=True)


@each_case("arguments", [[], ["http://127.0.0.1:1/", "--seconds", "0"], ["http://127.0.0.1:1/", "--nonsense"]])
def test_a_command_line_without_sense_is_refused_with_status_2(arguments: list[str]):
    assert run("doctor", *arguments).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "twice"),
    [
        ("data: {}\n\n", True),
        ("event: t\ndata: a\n\n", True),
        ("data: a", True),
        ('"data: a\\n\\n"', True),
        ('"data: a"', False),
        ("data for you", False),
        ("id: 5", False),
        ('{"data": "a"}', False),
    ],
)
def test_data_that_was_encoded_twice_is_reported(data: str, twice: bool, server: FakeSSEServer):
    server.answer(times=None, headers=WELL).event("plain").event(data).stall()
    _, findings, status = doctor(server.url, "--seconds", "3")
    if twice:
        assert findings["Data"][0] == "problem"
        assert findings["Data"][1].startswith("1 of 2 events has an encoded event for data")
        assert status == 1
    else:
        assert "Data" not in findings


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        ["text/event-stream", "text/event-stream; charset=utf-8"],
        ["text/html", "text/event-stream"],
        ["text/event-stream, text/event-stream"],
    ],
)
def test_several_media_types_are_a_piece_of_advice(lines: list[str], server: FakeSSEServer):
    headers = [*WELL.items(), *(("Content-Type", line) for line in lines)]
    server.answer(times=None, headers=headers, content_type="").event("a").stall()
    _, findings, status = doctor(server.url, "--seconds", "3")
    assert status == 0
    assert findings["Media type"] == ("advice", f"sent more than once: {', '.join(lines)}")


@pytest.mark.slow
def test_an_interim_answer_is_no_news(server: FakeSSEServer):
    hints = head("Link: </a>", status="103 Early Hints", content_type=None)
    with FakeSSEServer([hints, *Answer(headers=WELL).event("a").stall().steps()]) as hinting:
        _, findings, status = doctor(hinting.url, "--seconds", "3")
    assert (status, findings["Answer"]) == (0, ("ok", "HTTP/1.1 200 OK"))


BROTLI = bytes.fromhex("8b0580646174613a2068656c6c6f0a0a03")
CODED: dict[str, Any] = {"headers": {**WELL, "Content-Encoding": "dcb"}}


@pytest.mark.slow
def test_a_coding_that_can_not_be_decoded_is_reported_and_the_stream_watched_without_it(server: FakeSSEServer):
    server.answer(when=as_browsers_ask, times=None, **CODED).raw(BROTLI).stall()
    server.answer(times=None, headers=WELL).event("a", id=1).stall()
    _, findings, status = doctor(server.url, "--seconds", "3")
    assert (status, findings["Events"]) == (0, ("ok", "1: 1 message"))
    assert findings["Compression"][0] == "advice"
    assert "'dcb' (Content-Encoding), which can't be decoded here" in findings["Compression"][1]


def test_a_coding_without_a_request_for_it_is_the_only_problem(server: FakeSSEServer):
    server.answer(times=None, **CODED).raw(BROTLI).stall()
    _, findings, status = doctor(server.url, "--seconds", "3")
    assert (status, problems(findings)) == (1, {"Compression"})
