"""The writer: what it sends, and how it ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ssesync import Event, EventError, Settings, StreamClosed, Writer
from ssesync.server.source import END, PENDING, BlockingPull, Pulled
from ssesync.wire import Decoder

from ...cases import each_case
from .test_mailbox import Running


def pull(writer: Writer) -> Pulled:
    return writer.as_source().pull(2**20)


def sent(writer: Writer) -> bytes:
    pulled = pull(writer)
    return pulled if isinstance(pulled, bytes) else b""


def take(writer: Writer) -> bytes:
    """Wait for something to send."""
    pulled = BlockingPull(writer.as_source()).pull(2**20, 30)
    assert isinstance(pulled, bytes)
    return pulled


@each_case(
    "item, data",
    [
        (Event("x"), "x"),
        ("text", "text"),
        ("", ""),
        (b"\xc3\xa4", "ä"),
        (bytearray(b"b"), "b"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        (["a"], '["a"]'),
        ((1, 2), "[1,2]"),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
    ],
)
def test_what_may_be_written(item: Any, data: str) -> None:
    writer = Writer()
    writer.write(item)
    (event,) = Decoder().feed(sent(writer))
    assert event.data == data


@each_case("item", [None, object(), {1, 2}, 1j, {"a": object()}])
def test_what_can_not_be_written_is_a_type_error_that_names_the_type(item: Any) -> None:
    writer = Writer()
    with pytest.raises(TypeError, match=type(item).__name__):
        writer.write(item)
    assert sent(writer) == b""
    assert writer.events == 0


def test_nan_is_refused_as_it_is_not_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Writer().write({"a": float("nan")})


def test_nothing_written_is_changed() -> None:
    item = {"a": {"b": [1]}}
    writer = Writer()
    writer.write(item)
    writer.write(item)
    assert item == {"a": {"b": [1]}}


def test_write_event_takes_all_fields() -> None:
    writer = Writer()
    writer.write_event("d", type="t", id=7, retry=100, comment="c")
    assert sent(writer) == b": c\nid: 7\nevent: t\nretry: 100\ndata: d\n\n"


def test_write_event_without_data_sets_the_id_alone_and_counts_as_no_event() -> None:
    writer = Writer()
    writer.write_event(id=7)
    assert sent(writer) == b"id: 7\n\n"
    assert writer.events == 0


def test_write_event_writes_json_of_what_is_no_text() -> None:
    writer = Writer(dumps=lambda value: f"<{value}>")
    writer.write_event([1], type="t")
    assert sent(writer) == b"event: t\ndata: <[1]>\n\n"


def test_a_bad_field_is_refused_and_nothing_is_sent() -> None:
    writer = Writer()
    with pytest.raises(EventError, match="'type'"):
        writer.write_event("d", type="a\nb")
    assert sent(writer) == b""


def test_comments_and_keep_alives_have_no_blank_line() -> None:
    writer = Writer()
    writer.write_comment("a\nb")
    writer.write_keep_alive()
    assert sent(writer) == b": a\n: b\n:keep-alive\n"
    assert writer.events == 0


def test_a_batch_is_one_write() -> None:
    writer = Writer()
    with writer.batch():
        writer.write("a")
        writer.write_comment("c")
        with writer.batch():
            writer.write("b")
        assert pull(writer) is PENDING
    assert pull(writer) == b"data: a\n\n: c\ndata: b\n\n"
    assert writer.events == 2


def test_an_empty_batch_is_no_write() -> None:
    writer = Writer()
    with writer.batch():
        pass
    assert pull(writer) is PENDING


def test_what_a_failed_batch_wrote_is_sent() -> None:
    writer = Writer()

    def fail() -> None:
        with writer.batch():
            writer.write("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sent(writer) == b"data: a\n\n"
    writer.write("b")
    assert sent(writer) == b"data: b\n\n"


def test_a_batch_that_outgrows_the_bound_goes_out_in_several_writes() -> None:
    writer = Writer(Settings(max_pending_bytes=100))

    def write() -> None:
        with writer.batch():
            for _ in range(3):
                writer.write("x" * 60)

    writing = Running(write)
    writes = [take(writer), take(writer)]
    writing.join()
    assert [len(Decoder().feed(data)) for data in writes] == [2, 1]


def test_a_batch_takes_only_what_its_own_thread_writes() -> None:
    writer = Writer()
    with writer.batch():
        writer.write("inside")
        Running(lambda: writer.write("beside")).join()
        assert pull(writer) == b"data: beside\n\n"
    assert pull(writer) == b"data: inside\n\n"


def test_a_batch_on_a_closed_stream_raises_at_the_write() -> None:
    writer = Writer()
    writer.cancel("client_gone")
    with writer.batch(), pytest.raises(StreamClosed):
        writer.write("a")


def test_finish_sends_a_last_event_and_ends() -> None:
    writer = Writer()
    writer.finish({"ok": 1}, id=9)
    assert sent(writer) == b'id: 9\nevent: done\ndata: {"ok":1}\n\n'
    assert writer.reason == "done"
    with pytest.raises(StreamClosed):
        writer.finish()


def test_close_delivers_what_was_written_and_can_be_called_again() -> None:
    writer = Writer()
    writer.write("a")
    writer.close()
    writer.close()
    assert sent(writer) == b"data: a\n\n"
    assert pull(writer) is END
    assert not writer.cancelled.is_set()
    with pytest.raises(StreamClosed, match="done"):
        writer.write("b")


def test_cancel_drops_pending_writes_and_sets_the_token_with_the_reason() -> None:
    writer = Writer()
    writer.write("a")
    writer.cancel("lifetime")
    writer.cancel("client_gone")
    assert pull(writer) is END
    assert writer.closed
    assert writer.reason == "lifetime"
    assert writer.cancelled.wait(0)
    assert writer.cancelled.reason == "lifetime"
    with pytest.raises(StreamClosed) as caught:
        writer.write_keep_alive()
    assert caught.value.reason == "lifetime"


def test_a_reason_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="bored"):
        Writer().cancel("bored")


def test_several_threads_write_whole_events() -> None:
    writer = Writer(Settings(max_pending_events=10))
    threads = [
        Running(lambda n=n: [writer.write_event(f"{n} {i}\n{n}", id=i) for i in range(200)])  # type: ignore[misc]
        for n in range(5)
    ]
    decoder = Decoder()
    events: list[Event] = []
    while len(events) < 1000:
        events += decoder.feed(take(writer))
    for thread in threads:
        thread.join()
    expected = sorted((f"{n} {i}\n{n}", str(i)) for n in range(5) for i in range(200))
    assert sorted((event.data, event.id) for event in events) == expected


def test_a_writer_that_waits_for_a_slow_client_wakes_when_the_stream_ends() -> None:
    writer = Writer(Settings(max_pending_events=1))
    writer.write("a")
    writing = Running(lambda: writer.write("b"))
    assert writing.blocked()
    threading.Thread(target=writer.cancel, args=("stalled",)).start()
    with pytest.raises(StreamClosed, match="stalled"):
        writing.join()
