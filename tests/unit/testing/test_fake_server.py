"""FakeSSEServer, read by a Reader over requests, by requests alone and by a bare socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from ssesync import Backoff, ConnectionLost, Event, EventError, EventSource, Reader, ReadError
from ssesync.testing import (
    CHUNKED,
    FIN,
    HOLD,
    LAST_CHUNK,
    RST,
    Answer,
    FakeClock,
    FakeSSEServer,
    Pause,
    RecordedRequest,
    ScriptError,
    Steps,
    WaitTimeout,
    chunk,
    head,
)

TIMEOUT = 90.0


@pytest.fixture
def server() -> Iterator[FakeSSEServer]:
    with FakeSSEServer() as server:
        yield server


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def read(session: requests.Session, server: FakeSSEServer, path: str = "", **options: Any) -> list[Event]:
    with session.get(server.url + path, stream=True, timeout=TIMEOUT, **options) as response:
        return list(Reader(response))


def raw(server: FakeSSEServer, sent: bytes = b"GET / HTTP/1.1\r\n\r\n") -> bytes:
    """All that a bare socket is sent."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as connection:
        connection.sendall(sent)
        while data := connection.recv(65536):
            received += data
    return received


def test_events_arrive_as_scripted(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer().event("one\ntwo", type="t", id=1).event(Event("three")).events("four", Event("five", id="")).json(
        {"six": 6}, type="j"
    ).comment("hello").keep_alive().retry(7)
    comments: list[str] = []
    with session.get(server.url, stream=True, timeout=TIMEOUT) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        reader = Reader(response, on_comment=comments.append)
        assert [(event.data, event.type, event.id) for event in reader] == [
            ("one\ntwo", "t", "1"),
            ("three", "message", "1"),
            ("four", "message", "1"),
            ("five", "message", ""),
            ('{"six":6}', "j", ""),
        ]
    assert (comments, reader.retry) == (["hello", "keep-alive"], 7)


@pytest.mark.parametrize("framing", ["chunked", "length", "close", "http/1.0"])
def test_a_body_has_the_given_framing_and_is_complete(framing: Any, session: requests.Session) -> None:
    with FakeSSEServer(Answer(framing=framing).event("ä", id=1).raw("data: two\r\r")) as server:
        for _ in range(2):
            with session.get(server.url, stream=True, timeout=TIMEOUT) as response:
                assert [event.data for event in Reader(response)] == ["ä", "two"]
        kept_alive = framing in ("chunked", "length")
        assert server.connections == (1 if kept_alive else 2)
        assert response.raw.version == (10 if framing == "http/1.0" else 11)


def test_answers_are_given_in_turn_and_then_204(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer().event("one")
    server.answer(503, retry_after=1)
    server.answer("502 Bad Luck", body="wait", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    server.answer(404, content_type="application/json", body="{}")
    assert [event.data for event in read(session, server)] == ["one"]
    answers = [session.get(server.url, timeout=TIMEOUT) for _ in range(4)]
    assert [each.status_code for each in answers] == [503, 502, 404, 204]
    assert [each.headers.get("Retry-After") for each in answers[:2]] == ["1", "Wed, 21 Oct 2026 07:28:00 GMT"]
    assert (answers[1].reason, answers[1].text, answers[1].headers["Content-Type"]) == (
        "Bad Luck", "wait", "text/plain; charset=utf-8",
    )  # fmt: skip
    assert answers[2].json() == {}
    assert "Content-Length" not in answers[3].headers


def test_a_client_that_reconnects_is_led_through_faults_and_ends(server: FakeSSEServer) -> None:
    server.answer().event("one", id=1).event("two", id=2).drop(rst=True)
    server.answer(503, retry_after=9)
    server.drop()
    server.answer().event("three", id=3)
    clock = FakeClock()
    source = EventSource(server.url, clock=clock, backoff=Backoff(initial=0))
    assert [event.data for event in source] == ["one", "two", "three"]
    assert [request.last_event_id for request in server.requests] == ["", "2", "2", "2", "3"]
    assert any(9 <= seconds <= 11 for seconds in clock.waits)


def test_redirects_are_followed_to_their_location(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer(307, location="/elsewhere")
    server.answer().event("there")
    assert read(session, server, "here")[0].data == "there"
    assert [request.path for request in server.requests] == ["/here", "/elsewhere"]


def test_an_answer_may_be_for_certain_requests_and_for_many(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer(when=lambda request: request.path == "/b", times=2).event("b")
    server.answer(when=lambda request: request.connection == 0, times=None).event("first connection")
    server.answer().event("other")
    answers = [read(session, server, path)[0].data for path in ("a", "b", "a", "b", "b")]
    assert answers == ["first connection", "b", "first connection", "b", "first connection"]
    session.close()
    assert read(session, server)[0].data == "other"


def test_requests_are_recorded(server: FakeSSEServer, session: requests.Session) -> None:
    event_id = "äÅà"  # two end in bytes that are white space in Latin-1
    session.get(server.url + "a?b=c", headers={"Last-Event-ID": event_id.encode(), "X-Mine": "yes"}, timeout=TIMEOUT)
    session.post(server.url, json={"x": 1}, timeout=TIMEOUT)
    session.post(server.url, data=iter([b"one ", b"two"]), timeout=TIMEOUT)
    simple, posted, chunked_body = server.wait_for_requests(3)
    assert (simple.method, simple.target, simple.path, simple.connection) == ("GET", "/a?b=c", "/a", 0)
    assert (simple.last_event_id, simple.headers["x-mine"], simple.body) == (event_id, "yes", b"")
    assert (posted.method, posted.json(), posted.last_event_id) == ("POST", {"x": 1}, "")
    assert chunked_body.body == b"one two"


def test_several_headers_of_one_name_trailers_and_an_expectation(server: FakeSSEServer) -> None:
    server.answer(framing="close")
    head_of_request = b"PUT /x HTTP/1.1\r\nA: 1\r\na: 2\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(server, head_of_request + b"3;ext=1\r\nabc\r\n0\r\nTrailer: t\r\n\r\n").startswith(
        b"HTTP/1.1 100 Continue"
    )
    [request] = server.requests
    assert (request.headers["a"], request.body) == ("1, 2", b"abc")


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (lambda answer: answer.drop(), ConnectionLost),
        (lambda answer: answer.drop(rst=True), ConnectionLost),
        (lambda answer: answer.event("two").cut(at=len("data: one\n\nda")), ConnectionLost),
        (lambda answer: answer.event("two").cut(at=len("data: one\n\nda"), rst=True), ConnectionLost),
    ],
)
def test_a_connection_ends_at_the_given_step(
    ended: Callable[[Answer], object], error: type[Exception], server: FakeSSEServer, session: requests.Session
) -> None:
    ended(server.answer().event("one"))
    with session.get(server.url, stream=True, timeout=TIMEOUT) as response:
        reader = Reader(response)
        assert reader.read() == Event("one", type="message")
        with pytest.raises(error):
            reader.read()


def test_bytes_past_the_framing_break_it(server: FakeSSEServer, session: requests.Session) -> None:
    go = threading.Event()
    server.answer().event("one").wait_for(go).unframed(b"what?\r\n").stall()
    with session.get(server.url, stream=True, timeout=TIMEOUT) as response:
        reader = Reader(response)
        assert reader.read() is not None
        go.set()
        with pytest.raises(ReadError, match="not a chunk size: b'what"):
            reader.read()


def test_a_dropped_request_gets_not_one_byte(server: FakeSSEServer) -> None:
    server.drop()
    assert raw(server) == b""
    server.drop(rst=True)
    with pytest.raises(ConnectionResetError):
        raw(server)


@pytest.mark.parametrize("at", range(23))
def test_a_body_is_cut_after_exactly_so_many_bytes(at: int, server: FakeSSEServer) -> None:
    body = "data: one\n\ndata: äö\n\n".encode()
    assert len(body) == 23
    server.answer(framing="close").event("one").event("äö").cut(at=at)
    assert raw(server).partition(b"\r\n\r\n")[2] == body[:at]


def test_a_body_that_is_too_short_to_be_cut_is_a_mistake_of_the_script() -> None:
    server = FakeSSEServer(Answer(framing="close").event("one").cut(at=100)).start()
    raw(server)
    with pytest.raises(ScriptError, match="was to be cut at byte 100, but has 11"):
        server.close()


def test_a_body_is_sent_in_pieces_cut_at_the_given_offsets() -> None:
    answer = Answer().event("a").raw("0123456789").split(1, 9, 12, every=8, pause=0)
    pieces = [step for step in answer if isinstance(step, bytes)]
    assert pieces[1:] == [*map(chunk, [b"d", b"ata: a\n", b"\n", b"012", b"3456", b"789"]), LAST_CHUNK]
    assert Pause(0.25) in list(Answer().event("a").split(3, pause=0.25))


def test_a_client_that_is_given_single_bytes_reads_the_same(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer(framing="close").event("äöü", id=1).split(every=1, pause=0.001)
    assert read(session, server) == [Event("äöü", type="message", id="1")]


def test_a_script_waits_for_the_test(server: FakeSSEServer, session: requests.Session) -> None:
    event, semaphore = threading.Event(), threading.Semaphore(0)
    server.answer().event("one").wait_for(event).event("two").wait_for(semaphore).event("three").pause(0.01)
    with session.get(server.url, stream=True, timeout=TIMEOUT) as response:
        reader = Reader(response)
        for expected, go in (("one", event.set), ("two", semaphore.release), ("three", bool)):
            read_event = reader.read()
            assert read_event is not None
            assert read_event.data == expected
            go()
        assert reader.read() is None


def test_a_stall_lasts_until_the_client_leaves(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer().event("one").stall()
    with session.get(server.url, stream=True, timeout=TIMEOUT) as response:
        reader = Reader(response)
        assert reader.read() is not None
        with pytest.raises(WaitTimeout, match=r"no client left within 0.01 s"):
            server.wait_for_client_left(0.01)
    server.wait_for_client_left()


def test_a_stall_lasts_until_the_server_is_closed(session: requests.Session) -> None:
    with FakeSSEServer(Answer().event("one").stall()) as server:
        response = session.get(server.url, stream=True, timeout=TIMEOUT)
        reader = Reader(response)
        reader.read()
    with pytest.raises(ConnectionLost):
        reader.read()


def test_all_connections_are_cut_at_once(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer(times=3).event("one").stall()
    readers = [Reader(session.get(server.url, stream=True, timeout=TIMEOUT)) for _ in range(3)]
    for reader in readers:
        reader.read()
    server.drop_connections()
    for reader in readers:
        with pytest.raises(ConnectionLost):
            reader.read()
    assert read(session, server) == []  # and it goes on


def test_a_script_of_single_steps_is_made_for_each_request(session: requests.Session) -> None:
    def script(request: RecordedRequest) -> Steps:
        if request.path == "/answer":
            return Answer().event("an answer")
        go = threading.Event()
        go.set()
        return [head(CHUNKED), go, Pause(0), chunk(b"data: steps\n\n"), LAST_CHUNK]

    with FakeSSEServer(script) as server:
        assert [read(session, server, path)[0].data for path in ("answer", "steps")] == ["an answer", "steps"]
    with FakeSSEServer([head(version="1.0"), Event("encoded"), FIN]) as server:
        assert read(session, server)[0].data == "encoded"
    with FakeSSEServer([head(CHUNKED), chunk(b"data: x\n\n"), RST]) as server, pytest.raises(ConnectionLost):
        read(session, server)


def test_head_is_answered_without_a_body(server: FakeSSEServer, session: requests.Session) -> None:
    server.answer().event("one").stall()
    response = session.head(server.url, timeout=TIMEOUT)
    assert (response.status_code, response.content) == (200, b"")
    assert session.get(server.url, timeout=TIMEOUT).status_code == 204
    assert server.connections == 1


def test_https_is_served_with_the_tests_certificate(tmp_path: Path, session: requests.Session) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    session.verify = str(tmp_path / "ca.pem")
    with FakeSSEServer(tls=context) as server:
        assert server.url == f"https://127.0.0.1:{server.port}/"
        server.answer().event("one").drop(rst=True)
        server.answer().event("two")
        with pytest.raises(ConnectionLost):
            read(session, server)
        assert read(session, server)[0].data == "two"
        # One that never shakes hands does not hold up the end.
        silent = socket.create_connection(("127.0.0.1", server.port))
        while server.connections < 3:
            time.sleep(0.001)
        began = time.monotonic()
    assert time.monotonic() - began < TIMEOUT
    silent.close()


def test_a_server_comes_back_on_its_port(session: requests.Session) -> None:
    with FakeSSEServer() as server:
        pass
    with pytest.raises(requests.ConnectionError):
        session.get(server.url, timeout=TIMEOUT)
    with FakeSSEServer(Answer().event("back"), port=server.port) as again:
        assert read(session, again)[0].data == "back"
    with pytest.raises(RuntimeError, match="can be started once"):
        again.start()


def test_wait_for_requests_lists_those_that_arrived(server: FakeSSEServer, session: requests.Session) -> None:
    session.get(server.url + "one", timeout=TIMEOUT)
    with pytest.raises(WaitTimeout, match=r"2 requests did not arrive within 0.01 s; these arrived: GET /one"):
        server.wait_for_requests(2, timeout=0.01)
    assert len(server.wait_for_requests(1)) == 1


@pytest.mark.parametrize(
    ("script", "sent", "message"),
    [
        ([HOLD], b"GET / HTTP/1.1\r\n\r\n", "sends bytes while the script holds"),
        ([head(), "text"], b"GET / HTTP/1.1\r\n\r\n", "no step of type str: 'text'"),
        ([threading.Event()], b"GET / HTTP/1.1\r\n\r\n", "the signal .* was not set within 0.2 s"),
        ([], b"hello\r\n\r\n", "request is not HTTP: 'hello'"),
    ],
)
def test_what_went_wrong_is_raised_when_the_server_is_closed(script: Any, sent: bytes, message: str) -> None:
    server = FakeSSEServer(script, patience=0.2).start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as connection:
        connection.sendall(sent)
        if script == [HOLD]:
            server.wait_for_requests(1)
            connection.sendall(b"more")
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
    with pytest.raises(ScriptError, match=message):
        server.close()
    server.close()


def test_a_failing_test_is_not_hidden_by_its_scripts_failure() -> None:
    def script(request: RecordedRequest) -> Steps:
        raise ZeroDivisionError

    def run(fail: bool) -> None:
        with FakeSSEServer(script) as server:
            raw(server)
            if fail:
                raise LookupError("of the test")

    with pytest.raises(LookupError, match="of the test"):
        run(fail=True)
    with pytest.raises(ZeroDivisionError):
        run(fail=False)


def test_a_field_that_can_not_be_written_is_refused_at_once(server: FakeSSEServer) -> None:
    with pytest.raises(EventError):
        server.answer().event("x", type="two\nlines")
