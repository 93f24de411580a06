"""More subscribers than a server has threads, their coming and going, and what they missed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.servers import eventually

from .kinds import KINDS, MAKES, PLACES, Server, Stream, event

#: Nothing is written by itself for as long as any of these tests takes.
SILENT = {"keep_alive": 60, "detach": True}
CROWD = 30
ON_EACH = pytest.mark.parametrize("server", MAKES, indirect=True)


@contextlib.contextmanager
def crowd(server: Server, channel: str, count: int = CROWD) -> Iterator[list[Stream]]:
    with contextlib.ExitStack() as stack:
        streams = []
        for number in range(count):
            name = f"{channel}-{number}"
            stream = server.subscribe(PLACES[number % 2], name, channel=channel, options=SILENT)
            streams.append(stack.enter_context(stream))
        for stream in streams:
            stream.opens()
        yield streams


def publish_to_all(server: Server, streams: list[Stream], channel: str, *data: str) -> None:
    for place in PLACES:
        sent = b"".join(map(event, server.publish(place, channel, *data), data))
        for stream in streams:
            if stream.place == place:
                stream.answer.expect(sent)


@ON_EACH
def test_thirty_subscribers_get_all_while_ordinary_requests_are_answered_and_leave_nothing(server: Server):
    """Half of them leave with a FIN, half with a reset; a unix socket knows no reset."""
    channel, gone = f"crowd-{server.kind.name}", server.closed("client_gone")
    with crowd(server, channel) as streams:
        state = server.state()
        assert [stream["tier"] for stream in state["streams"]] == ["detached"] * CROWD
        assert state["threads"].count("ssesync-reactor") == 1
        # Pools may have grown, the server's and those of our helpers.
        assert len(state["threads"]) <= len(server.base["threads"]) + 8, state["threads"]
        assert eventually(lambda: server.state()["subscribers"] == server.base["subscribers"] + CROWD)
        for number in range(3):
            server.ping(PLACES[number % 2])
            publish_to_all(server, streams, channel, f"event {number}", "x" * 5_000)
        for number, stream in enumerate(streams[:20]):
            (stream.wire.rst if number % 2 else stream.wire.fin)()
        assert eventually(lambda: server.closed("client_gone") == gone + 20)
        publish_to_all(server, streams[20:], channel, "to those who stayed")
        for stream in streams[:20]:
            assert stream.closes() == ["client_gone", stream.name, 6]
        server.ping()
    assert eventually(lambda: server.closed("client_gone") == gone + CROWD)
    for stream in streams[20:]:
        assert stream.closes() == ["client_gone", stream.name, 7]


@ON_EACH
def test_what_was_missed_comes_first_then_what_is_live_without_a_gap_or_a_duplicate(server: Server):
    """Events are published all the time, so that some fall into each step of the hand-over."""
    channel, place = f"replay-{server.kind.name}", "flask"
    ids: list[str] = server.ask("publish", place=place, channel=channel, data=["0", "1", "2", "3"])
    done = threading.Event()

    def publish() -> None:
        # Behind each answer, and so at whatever pace the machine has.
        while not done.is_set() and len(ids) < 600:
            data = [str(len(ids) + more) for more in range(2)]
            ids.extend(server.ask("publish", place=place, channel=channel, data=data))

    publisher = threading.Thread(target=publish)
    publisher.start()
    with contextlib.ExitStack() as stack:
        streams = []
        try:
            for number in range(8):
                # Some miss nearly all, some only what came since the last answer.
                after = 0 if number % 2 else len(ids) - 1
                stream = server.subscribe(
                    place, f"{channel}-{number}", channel=channel, options=SILENT, headers={"Last_Event_ID": ids[after]}
                )
                streams.append((stack.enter_context(stream), after))
                stream.opens()
        finally:
            done.set()
            publisher.join()
        for stream, after in streams:
            for number in range(after + 1, len(ids)):
                stream.answer.expect(event(ids[number], str(number)))
        assert {stream["tier"] for stream in server.state()["streams"]} == {"detached"}
        [last] = server.ask("publish", place=place, channel=channel, data=["last"])
        for stream, _ in streams:
            stream.answer.expect(event(last, "last"))
            stream.revoke()
            stream.answer.end()


@pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug", "runserver"], indirect=True)
def test_a_long_absence_is_caught_up_with_from_the_log_page_by_page(server: Server):
    data = [f"{number} ".ljust(300, "l") for number in range(450)]
    channel = f"long-{server.kind.name}"
    ids = server.publish("django", channel, *data)
    stream = server.subscribe("django", channel, options=SILENT, headers={"Last_Event_ID": ids[0]})
    with stream:
        stream.opens().answer.expect(b"".join(map(event, ids[1:], data[1:])))
        stream.delivers("live")
        assert stream.described()["tier"] == "detached"


@pytest.mark.parametrize("server", ["gthread", "werkzeug"], indirect=True)
def test_an_unknown_id_gets_one_reset_and_then_what_is_live(server: Server):
    with server.subscribe("flask", options=SILENT, headers={"Last_Event_ID": "0123-7"}) as stream:
        stream.opens()
        assert stream.described()["tier"] == "detached"
        # What is published before the log was looked at is part of what the client is to fetch anew.
        while b"event: reset\n" not in stream.wire.received:
            assert stream.wire.more()
        [event_id] = stream.publish("live")
        while b"live" not in stream.wire.received:
            assert stream.wire.more()
        stream.revoke()
        body = stream.answer.rest()
        assert body.count(b"event: reset\n") == 1
        assert body.endswith(event(event_id, "live"))


@ON_EACH
def test_a_large_event_reaches_a_slow_reader_whole(server: Server):
    """More than the kernel takes at once, so it is sent in parts as the client makes room."""
    data = "".join(f"{number:07}" for number in range(100_000))
    wire = server.wire(receive_buffer=4_096)
    with server.subscribe("django", options=SILENT, wire=wire) as stream:
        stream.opens()
        [event_id] = stream.publish(data)
        server.ping()
        stream.answer.expect(event(event_id, data))
        stream.delivers("next")


@pytest.mark.parametrize("server", [name for name in MAKES if KINDS[name].transport == "tcp"], indirect=True)
def test_with_the_opt_out_a_half_close_keeps_the_stream_and_a_reset_ends_it(server: Server):
    with server.subscribe("flask", options=SILENT | {"half_close_is_gone": False}) as stream:
        stream.opens()
        stream.wire.socket.shutdown(socket.SHUT_WR)
        stream.delivers("after")
        assert stream.described()["tier"] == "detached"
        stream.wire.rst()
        assert stream.closes()[0] == "client_gone"


@pytest.mark.parametrize("server", ["gthread", "sync_unix", "werkzeug"], indirect=True)
@pytest.mark.parametrize("leave", ["half-close", "behind a byte"])
def test_a_half_close_and_an_end_after_unread_bytes_are_noticed(server: Server, leave: str):
    with server.subscribe("flask", options=SILENT) as stream:
        stream.opens()
        if leave == "half-close":
            stream.wire.socket.shutdown(socket.SHUT_WR)
        else:
            stream.wire.send(b"GET /x")
            stream.delivers("still there")
            stream.wire.fin()
        assert stream.closes()[0] == "client_gone"


def test_many_come_and_go_at_once(use: Callable[[str], Server]):
    server = use("gthread")
    opened = server.state()["opened"]

    def come_and_go(number: int) -> None:
        for turn in range(10):
            with server.subscribe("flask", f"turn-{number}-{turn}", channel="turns", options=SILENT) as stream:
                stream.opens()
                [event_id] = stream.publish(f"{number} {turn}")
                while event(event_id, f"{number} {turn}") not in stream.wire.received:
                    assert stream.wire.more()

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.state()["opened"] == opened + 60
    for number in range(6):
        for turn in range(10):
            name = f"turn-{number}-{turn}"
            assert eventually(lambda: len(server.facts(name).get("on_close", [])) == 1)  # noqa: B023
