"""What stands between a stream and its server may do as it likes: nothing is lost, doubled or out of order."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable

import pytest

from tests.apps.middlewares import LENGTH, THROUGH, Undo
from tests.servers import eventually

from .kinds import KINDS, OPENING, Server, event

SILENT = {"keep_alive": 60}
#: One of each way to write an answer.
ON_SOME = pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver"], indirect=True)
#: What the stream comes to behind each that lets it go on.
TIERS = {
    "compress": "served",
    "compress in secret": "served",
    "rewrite": "served",
    "rename": "served",
    "split": "served",
    "before": "served",
    "writing": "served",
    "prefetch two": "served",
    "prefetch": "detached",
    "wrap": "detached",
    "careless": "detached",
    "empty": "detached",
    "lazy": "detached",
}
#: What comes before the stream's own.
IN_FRONT = {"before": b":hello\n", "writing": b":hello\n"}


@pytest.mark.parametrize("through", TIERS)
@ON_SOME
def test_behind_a_middleware_every_byte_arrives_once_and_in_order(server: Server, through: str):
    with server.subscribe("flask", options=SILENT, through=through, first='["state"]') as stream:
        stream.answer.undo = Undo(through)
        assert stream.answer.status == 200
        assert stream.answer.all("content-encoding") == (["gzip"] if through == "compress" else ["identity"])
        stream.answer.expect(IN_FRONT.get(through, b"") + OPENING + b"data: state\n\n")
        stream.delivers("first")
        # Without chunks, two halves are the same as the whole.
        detached = TIERS[through] == "detached" or (through == "split" and stream.answer.framing == "raw")
        assert stream.described()["tier"] == ("detached" if detached else "served")
        stream.delivers("second", "x" * 100_000, "ü", {"number": 3})
        stream.answer.silent(0.05)
        stream.revoke()
        stream.answer.end()
        assert stream.closes()[:2] == ["revoked", stream.name]


@pytest.mark.parametrize("through", ["wrap", "rewrite", "split"])
@ON_SOME
def test_events_published_at_any_time_arrive_after_the_missed_ones(server: Server, through: str):
    """Those of the log and those that came while the hand-over was tried, and given up."""
    name = f"busy{through}{server.kind.name}"
    data = [str(number) for number in range(150)]
    ids = server.publish("flask", name, *data)
    with server.subscribe(
        "flask", name, options=SILENT, through=through, headers={"Last_Event_ID": ids[0]}
    ) as stream:  # fmt: skip
        ids += server.ask("publish", place="flask", channel=name, data=data)
        stream.answer.undo = Undo(through)
        stream.answer.expect(OPENING + b"".join(map(event, ids[1:], [*data[1:], *data])))


@ON_SOME
def test_a_length_that_a_middleware_makes_up_is_kept_to(server: Server):
    with server.subscribe("flask", options=SILENT, through="length") as stream:
        stream.answer.expect(OPENING)
        assert stream.answer.framing == "length"
        assert stream.answer.header("content-length") == str(LENGTH)
        stream.delivers("first", "second")
        assert stream.described()["tier"] == "served"
        stream.wire.fin()
        assert stream.closes()[0] == "client_gone"


@pytest.mark.parametrize(("through", "body"), [("one", OPENING), ("one late", OPENING), ("none", b"")])
@ON_SOME
def test_a_middleware_may_take_the_first_chunk_and_let_the_rest_go(server: Server, through: str, body: bytes):
    with server.subscribe("flask", options=SILENT, through=through) as stream:
        assert stream.answer.status == 200
        stream.answer.expect(body)
        stream.answer.end()
        assert len(stream.facts()["on_close"]) == 1
    server.ping()


def test_a_middleware_that_closes_too_late_has_no_others_connection_taken(use: Callable[[str], Server]):
    """The server has closed its descriptor, and given its number to another client, when the stream is let go."""
    server = use("werkzeug")
    before = len(server.state()["descriptors"])
    with contextlib.ExitStack() as stack:
        late = stack.enter_context(server.subscribe("flask", options=SILENT, through="kept"))
        stack.callback(server.ask, "release")
        # The real connection, and the library's end of the dummy, whose other end the server has closed.
        assert eventually(lambda: "view" in late.facts())
        assert eventually(lambda: len(server.state()["descriptors"]) == before + 2)
        others = [
            stack.enter_context(server.subscribe("flask", options=SILENT | {"detach": False}).opens()) for _ in range(3)
        ]
        server.ask("release")
        for stream in others:
            stream.delivers("still there")
        late.opens()


@ON_SOME
def test_a_middleware_that_fails_ends_its_own_stream_and_no_other(server: Server):
    with server.subscribe("flask", options=SILENT) as other:
        other.opens()
        with server.subscribe("flask", options=SILENT, through="broken") as stream:
            stream.answer.expect(OPENING)
            while stream.wire.more():
                pass
            assert len(stream.facts()["on_close"]) == 1
        other.delivers("still there")
        server.ping()
    assert "a middleware is broken" in server.log()


@ON_SOME
def test_a_head_may_be_large(server: Server):
    with server.subscribe("flask", options=SILENT, through="large") as stream:
        stream.opens()
        assert sum(len(value) for _, value in stream.answer.headers) > 100_000
        assert stream.described()["tier"] == "detached"
        stream.delivers("first", "x" * 100_000)


@ON_SOME
def test_gzip_middleware_leaves_a_stream_alone(server: Server):
    with server.subscribe("django", options=SILENT, headers={"Accept_Encoding": "gzip"}) as stream:
        stream.opens().delivers("x" * 1_000)
        assert stream.answer.header("content-encoding") == "identity"
        assert stream.described()["tier"] == "detached"


@pytest.mark.parametrize("server", ["gthread", "werkzeug"], indirect=True)
def test_gzip_middleware_that_is_forced_on_a_stream_gets_all_of_it(server: Server):
    """It holds back what it compresses; that is its way, and the stream's end is the same as ever."""
    with server.subscribe("django", options=SILENT, headers={"Accept_Encoding": "gzip"}, gzip="1") as stream:
        assert stream.answer.header("content-encoding") == "gzip"
        assert stream.described()["tier"] == "served"
        data = ["first", "x" * 1_000]
        ids = stream.publish(*data)
        assert eventually(lambda: stream.described()["bytes"] > 1_000)
        stream.revoke()
        assert gzip.decompress(stream.answer.rest()) == OPENING + b"".join(map(event, ids, data))


def test_a_stream_that_stays_served_is_counted_and_beyond_the_limit_ends_with_a_reconnection_time(
    use: Callable[[str], Server],
):
    server = use("gthread")
    options = SILENT | {"max_streams": 1}
    with server.subscribe("flask", options=options, through="rewrite") as stream:
        stream.answer.undo = Undo("rewrite")
        stream.opens()
        stream.delivers("first")
        assert stream.described()["tier"] == "served"
        with server.subscribe("flask", options=options, through="rewrite") as second:
            second.answer.undo = Undo("rewrite")
            second.answer.expect(OPENING + b"retry: ")
            assert second.answer.rest()[-1:] == b"\n"
        # Those that are detached take no such place.
        with server.subscribe("flask", options=options) as third:
            third.opens().delivers("third")
            stream.delivers("second")


def test_a_middleware_that_is_the_cause_is_warned_of_once(start: Callable[..., Server]):
    server = start(KINDS["gthread"])
    for _ in range(2):
        with server.subscribe("flask", options=SILENT, through="rewrite") as stream:
            stream.answer.undo = Undo("rewrite")
            stream.opens()
    assert server.logs("DEBUG ssesync: the event stream")
    lines = [line for line in server.log().splitlines() if line.startswith("WARNING ssesync")]
    assert len(lines) == 1, server.log()
    assert "takes a thread" in lines[0]
    assert "session=" not in lines[0], "the log has what only the client should"


@ON_SOME
def test_a_stream_that_stays_served_leaves_the_servers_socket_unchanged(server: Server):
    """A socket that no longer blocks would lose what a slow reader has no room for."""
    data = "x" * 900_000
    wire = server.wire(receive_buffer=4_096)
    with server.subscribe("flask", options=SILENT, through="split", wire=wire) as stream:
        stream.opens()
        [event_id] = stream.publish(data)
        # The server sits in a send by then.
        assert eventually(lambda: stream.described()["bytes"] > 150_000)
        stream.answer.expect(event(event_id, data))
        stream.delivers("next")


def test_every_middleware_is_tried():
    others = {"one", "one late", "none", "kept", "broken", "length", "large"}
    assert set(TIERS) | others == set(THROUGH)
