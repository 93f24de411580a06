"""What a Reader gives and what it tells: reading, iterating, IDs, retry, comments, sizes, sentinels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import requests

from ssesync import (
    ContentTypeError,
    Event,
    EventTooLarge,
    IdleTimeout,
    IncompleteStream,
    Reader,
    Relay,
    SettingsError,
    Writer,
)
from ssesync.testing import CHUNKED, HOLD, LAST_CHUNK, FakeSSEServer, Pause, Step, chunk, chunked, head

from ...cases import each_case
from .background import Background, Reading
from .raw_server import TIMEOUT


def event(data: str, id: str | None = None, type: str = "message") -> Event:
    return Event(data, id=id, type=type)


def letters(*names: str) -> list[bytes | threading.Event | threading.Semaphore | Step]:
    return [head(CHUNKED), *(chunk(f"data: {name}\n\n".encode()) for name in names), LAST_CHUNK]


def test_read_gives_one_event_after_the_other_then_none(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve(letters("a", "b"))))
    assert [reader.read() for _ in range(5)] == [event("a"), event("b"), None, None, None]


def test_iteration_gives_all_events_and_ends(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve(letters("a", "b"))))
    assert list(reader) == [event("a"), event("b")]
    assert list(reader) == []


def test_reading_and_iterating_may_be_mixed(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve(letters("a", "b", "c", "d", "e"))))
    assert reader.read() == event("a")
    events = iter(reader)
    assert next(events) == event("b")
    assert reader.read() == event("c")
    assert list(events) == [event("d"), event("e")]
    assert reader.read() is None


def test_nothing_is_given_once_a_loop_was_left(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve(letters("a", "b", "c"))))
    for _ in reader:
        break
    assert reader.read() is None
    assert reader.cancelled


def test_for_each_calls_with_every_event(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    seen: list[Event] = []
    Reader(get(serve(letters("a", "b")))).for_each(seen.append)
    assert seen == [event("a"), event("b")]


def test_a_with_block_closes_the_response(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([*letters("a")[:2], HOLD])
    with Reader(get(server)) as reader:
        assert reader.read() == event("a")
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert reader.read() is None


def test_the_response_is_there_to_be_looked_at(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    response = get(serve(letters("a")))
    assert Reader(response).response is response


def test_the_last_event_id_is_that_of_the_last_event_given_not_of_one_that_waits(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    stream = b"id: 1\ndata: a\n\ndata: b\n\nid: 3\ndata: c\n\nid\ndata: d\n\nid: 5\ndata: e\n\n"
    reader = Reader(get(serve([head(CHUNKED), chunk(stream), LAST_CHUNK])))
    assert reader.last_event_id == ""
    assert [(given.data, given.id, reader.last_event_id) for given in reader] == [
        ("a", "1", "1"),
        ("b", "1", "1"),
        ("c", "3", "3"),
        ("d", "", ""),
        ("e", "5", "5"),
    ]
    assert reader.last_event_id == "5"


def test_the_last_event_id_stays_where_the_loop_was_left(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    stream = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n"
    reader = Reader(get(serve([head(CHUNKED), chunk(stream), LAST_CHUNK])))
    for _ in reader:
        break
    assert reader.last_event_id == "1"


def test_a_block_with_only_an_id_counts_once_the_events_before_it_were_given(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Event()
    stream = b"id: 1\ndata: a\n\nid: 2\n\n"
    reader = Reader(get(serve([head(CHUNKED), chunk(stream), go, chunk(b"data: b\n\n"), LAST_CHUNK])))
    assert reader.read() == event("a", "1")
    assert reader.last_event_id == "1"
    reading = Background(reader.read).wait_until_it_reads()
    assert reader.last_event_id == "2"
    go.set()
    assert reading.result() == event("b", "2")


def test_an_id_without_its_blank_line_does_not_count(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head(CHUNKED), chunk(b"id: 1\ndata: a\n\nid: 2\n"), LAST_CHUNK])))
    assert list(reader) == [event("a", "1")]
    assert reader.last_event_id == "1"


def test_events_carry_the_given_last_event_id_until_the_stream_sets_one(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head(CHUNKED), chunk(b"data: a\n\nid: 8\ndata: b\n\n"), LAST_CHUNK])), last_event_id="7")
    assert reader.last_event_id == "7"
    assert list(reader) == [event("a", "7"), event("b", "8")]


def test_the_reconnection_time_is_the_last_that_the_stream_has_set(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Event()
    reader = Reader(
        get(serve([head(CHUNKED), chunk(b"retry: 10\ndata: a\n\n"), go, chunk(b"retry: 20\nretry: -1\n"), LAST_CHUNK]))
    )
    assert reader.retry is None
    assert reader.read() == Event("a", type="message", retry=10)
    assert reader.retry == 10
    go.set()
    assert reader.read() is None
    assert reader.retry == 20


def test_comments_are_reported_in_order_among_the_events() -> None:
    collected: list[str] = []
    reader = Reader(
        [b": one\n:two\n\ndata: a\n\n:\n", b": \xc3\xbc\n:", b"tail\ndata: b\n: in\n\n"], on_comment=collected.append
    )
    assert reader.read() == event("a")
    assert collected == ["one", "two"]
    assert reader.read() == event("b")
    assert collected == ["one", "two", "", "ü", "tail", "in"]


def test_an_error_in_on_comment_closes_the_response_and_goes_on(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(b": stop\n"), HOLD])

    def on_comment(text: str) -> None:
        raise KeyError(text)

    reader = Reader(get(server), on_comment=on_comment)
    with pytest.raises(KeyError, match="stop"):
        reader.read()
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_events_complete_before_one_that_is_too_large_are_given_first(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    stream = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: " + b"c" * 200 + b"\n\ndata: d\n\n"
    server = serve([head(CHUNKED), chunk(stream), HOLD])
    reader = Reader(get(server), max_event_size=100)
    assert reader.read() == event("a", "1")
    assert reader.last_event_id == "1"
    assert reader.read() == event("b", "2")
    with pytest.raises(EventTooLarge, match="100") as caught:
        reader.read()
    assert caught.value.size > caught.value.limit == 100
    assert reader.last_event_id == "2"
    assert reader.read() is None
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_an_endless_line_is_refused_while_it_still_arrives(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(b"data: "), *[chunk(b"x" * 1000)] * 20, HOLD])
    with pytest.raises(EventTooLarge):
        Reader(get(server), max_event_size=10_000).read()
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_the_limit_may_be_changed_in_mid_stream(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    go = threading.Semaphore(0)
    large = b"data: " + b"x" * 200 + b"\n\n"
    server = serve([head(CHUNKED), chunk(b"data: a\n\n"), go, chunk(large), go, chunk(large), HOLD])
    reader = Reader(get(server), max_event_size=100)
    assert reader.max_event_size == 100
    assert reader.read() == event("a")
    reader.max_event_size = 1000
    go.release()
    assert reader.read() == event("x" * 200)
    reader.max_event_size = 50
    go.release()
    with pytest.raises(EventTooLarge) as caught:
        reader.read()
    assert caught.value.limit == 50


@each_case("until", ["[DONE]", lambda event: event.type == "end"])
@each_case("required", [True, False])
def test_the_sentinel_ends_the_stream_though_the_server_holds_it(
    until: str | Callable[[Event], object],
    required: bool,
    serve_both: Callable[..., FakeSSEServer],
    get: Callable[..., requests.Response],
) -> None:
    stream = b"id: 1\ndata: a\n\nid: 2\nevent: end\ndata: [DONE]\n\ndata: b\n\n"
    server = serve_both([head(CHUNKED), chunk(stream), HOLD])
    reader = Reader(get(server), until=until, until_required=required)
    assert list(reader) == [event("a", "1")]
    assert server.client_left.acquire(timeout=TIMEOUT)
    assert reader.read() is None
    assert reader.last_event_id == "1"


def test_the_sentinel_is_the_whole_data_and_nothing_less() -> None:
    stream = [b"data: [DONE] \n\ndata: [done]\n\ndata: [DONE]\ndata: \n\ndata: [DONE]\n\ndata: x\n\n"]
    assert list(Reader(stream, until="[DONE]")) == [event("[DONE] "), event("[done]"), event("[DONE]\n")]


def test_what_until_raises_closes_the_response_and_goes_on(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(b"data: x\n\n"), HOLD])

    def until(event: Event) -> bool:
        raise KeyError(event.data)

    with pytest.raises(KeyError, match="x"):
        Reader(get(server), until=until).read()
    assert server.client_left.acquire(timeout=TIMEOUT)


def test_an_end_without_the_sentinel_is_an_error_only_where_it_is_required(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve(letters("a", "b"))
    assert list(Reader(get(server), until="[DONE]")) == [event("a"), event("b")]
    reader = Reader(get(server), until="[DONE]", until_required=True)
    assert list(islice(reader, 2)) == [event("a"), event("b")]
    seen: list[Event] = []
    with pytest.raises(IncompleteStream, match=r"\[DONE\]"):
        Reader(get(server), until="[DONE]", until_required=True).for_each(seen.append)
    assert seen == [event("a"), event("b")]


def test_a_stream_without_a_single_event_lacks_its_sentinel(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head(CHUNKED), LAST_CHUNK])), until="[DONE]", until_required=True)
    with pytest.raises(IncompleteStream):
        reader.read()


def test_a_block_that_the_end_cuts_is_dropped_and_the_sentinel_in_it_does_not_count(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(b"data: a\n\ndata: [DONE]\n"), LAST_CHUNK])
    assert list(Reader(get(server))) == [event("a")]
    with pytest.raises(IncompleteStream):
        list(Reader(get(server), until="[DONE]", until_required=True))


@each_case("charset", ["", "; charset=utf-8", "; charset=ISO-8859-1", ";charset=utf-16", "; charset=nonsense"])
def test_events_are_utf_8_whatever_the_response_says(
    charset: str, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    stream = "data: é☃\n\n".encode()
    response = get(serve([head(CHUNKED, content_type="text/event-stream" + charset), chunked(stream)]))
    response.encoding = "latin-1"
    assert list(Reader(response)) == [event("é☃")]


def test_malformed_utf_8_is_replaced_and_ends_nothing(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    server = serve([head(CHUNKED), chunk(b"data: \xff\xe2\x82"), chunk(b"\xac \xe2\x82\n\n"), LAST_CHUNK])
    assert list(Reader(get(server))) == [event("\ufffd€ \ufffd")]


def test_a_reader_reads_on_one_thread_while_others_read_its_properties(
    serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    reader = Reader(get(serve([head(CHUNKED), chunk(b"retry: 5\nid: 1\ndata: a\n\n"), HOLD])))
    reading = Reading(reader).wait_for_next(1)
    assert (reader.last_event_id, reader.retry, reader.cancelled) == ("1", 5, False)
    reader.close()
    assert reading.result() == [Event("a", type="message", id="1", retry=5)]


def test_the_answer_to_head_has_no_body_whatever_its_headers_are(serve: Callable[..., FakeSSEServer]) -> None:
    server = serve([head(CHUNKED), HOLD])
    with requests.head(server.url, stream=True, timeout=90) as response:
        assert list(Reader(response)) == []


class TestRetry:
    """What a block asks with ``retry:`` is its event's; what is in force is in step with what was handed out."""

    STREAM = (
        b"retry: 1500\nid: 1\ndata: a\n\ndata: b\n\nretry: 7\n\n"
        b"data: c\nretry: 8\nretry: x\n\nretry: 9\n:k\ndata: d\n\n"
    )

    def test_an_event_has_that_of_its_own_block(self) -> None:
        assert [given.retry for given in Reader([self.STREAM])] == [1500, None, 8, 9]

    @each_case("size", [1, 5, 1000])
    @each_case("comments", [False, True])
    def test_that_in_force_is_in_step(self, size: int, comments: bool) -> None:
        chunks = [self.STREAM[at : at + size] for at in range(0, len(self.STREAM), size)]
        reader = Reader(chunks)
        events = reader.events_and_comments() if comments else reader
        seen = [(given.data, reader.retry) for given in events if given.data is not None]
        assert seen == [("a", 1500), ("b", 1500), ("c", 8), ("d", 9)]

    def test_a_reconnection_time_after_the_last_event_counts_at_the_end(self) -> None:
        reader = Reader([b"data: a\n\nretry: 5\n\n"])
        assert reader.read() == event("a")
        assert reader.retry is None
        assert reader.read() is None
        assert reader.retry == 5

    def test_it_is_passed_on(self) -> None:
        writer = Writer()
        Reader([self.STREAM]).for_each(writer.write)
        passed = writer.as_source().pull(2**20)
        assert isinstance(passed, bytes)
        assert [given.retry for given in Reader([passed])] == [1500, None, 8, 9]


class TestUntilInclusive:
    def test_the_last_event_is_given_and_its_id_counts(
        self, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        server = serve([head(CHUNKED), chunk(b"id: 1\ndata: a\n\nid: 2\ndata: end\n\nid: 3\ndata: b\n\n"), HOLD])
        reader = Reader(get(server), until="end", until_inclusive=True, until_required=True)
        assert [reader.read(), reader.read()] == [event("a", "1"), event("end", "2")]
        # Free before anybody reads on.
        assert server.client_left.acquire(timeout=TIMEOUT)
        assert reader.read() is None
        assert reader.last_event_id == "2"

    def test_without_it_neither(self) -> None:
        reader = Reader([b"id: 1\ndata: a\n\nid: 2\ndata: end\n\n"], until="end")
        assert list(reader) == [event("a", "1")]
        assert reader.last_event_id == "1"

    def test_it_may_be_a_function(self) -> None:
        reader = Reader(
            [b"data: a\n\nevent: done\ndata: b\n\n"], until=lambda e: e.type == "done", until_inclusive=True
        )
        assert [given.data for given in reader] == ["a", "b"]

    @pytest.mark.parametrize("option", ["until_inclusive", "until_required"])
    def test_it_needs_an_event_to_be_about(self, option: str) -> None:
        with pytest.raises(SettingsError, match="need until="):
            Reader([], **{option: True})


class TestEventTimeout:
    """A limit that only events feed."""

    @pytest.mark.slow
    def test_comments_do_not_keep_it_alive(
        self, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        def script(_: Any) -> Iterator[Any]:
            yield head(CHUNKED) + chunk(b"data: a\n\n")
            while True:
                yield chunk(b":keep-alive\n")
                yield Pause(0.02)

        server = serve(script)
        reader = Reader(get(server), idle_timeout=TIMEOUT, event_timeout=0.3)
        assert reader.read() == event("a")
        reading = Background(reader.read)
        with pytest.raises(IdleTimeout, match=r"no event arrived within event_timeout=0\.3 s"):
            reading.result()
        assert server.client_left.acquire(timeout=TIMEOUT)

    @pytest.mark.slow
    def test_what_the_consumer_does_meanwhile_does_not_count(
        self, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        stream = b"data: a\n\n: one\n: two\ndata: b\n\ndata: c\n\n"
        reader = Reader(get(serve([head(CHUNKED), chunk(stream), LAST_CHUNK])), event_timeout=1)
        seen = []
        for given in reader.events_and_comments():
            seen.append(given.data or given.comment)
            time.sleep(1.1 if seen[-1] in ("a", "one") else 0)
        assert seen == ["a", "one", "two", "b", "c"]

    def test_a_silent_server_meets_it(
        self, serve_both: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        reader = Reader(get(serve_both([head(CHUNKED), HOLD])), event_timeout=0.2)
        with pytest.raises(IdleTimeout, match="event_timeout"):
            Background(reader.read).result()

    def test_its_thread_ends_with_the_reader(
        self, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        def watching() -> list[threading.Thread]:
            return [thread for thread in threading.enumerate() if thread.name == "ssesync-watchdog"]

        reader = Reader(get(serve(letters("a", "b"))), event_timeout=1000)
        assert list(reader) == [event("a"), event("b")]
        for thread in watching():
            thread.join(TIMEOUT)
        assert watching() == []

    @pytest.mark.parametrize("value", [0, -1])
    def test_what_is_no_time_is_refused(self, value: float) -> None:
        with pytest.raises(SettingsError, match=f"event_timeout= takes a number above 0 or None, got {value}"):
            Reader([], event_timeout=value)


class TestRefusals:
    """What can't be read is refused with what to give instead."""

    @each_case(
        "source, remedy",
        [
            ("http://127.0.0.1/events", r"the address 'http.*Reader\(requests\.get\(url, stream=True\)\)"),
            ("HTTPS://x.example/", "the address.*EventSource"),
            ("data: a\n\n", r"got text.*Reader\(\[text\.encode\(\)\]\)"),
            (b"data: a\n\n", r"got bytes b'data.*in a list, Reader\(\[body\]\)"),
            (bytearray(b"data: a\n\n"), r"got bytearray.*in a list"),
            (memoryview(b"data: a\n\n"), r"got memoryview.*in a list"),
            (None, "got NoneType"),
            (5, "got int 5"),
        ],
        ids=["address", "another", "text", "bytes", "bytearray", "memoryview", "None", "number"],
    )
    def test_what_is_no_source(self, source: Any, remedy: str) -> None:
        with pytest.raises(TypeError, match=remedy):
            Reader(source)

    @pytest.mark.parametrize("options", [{}, {"decode_unicode": True}])
    def test_lines_have_lost_what_ends_an_event(
        self, options: dict[str, Any], serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        with pytest.raises(TypeError, match=r"iter_lines\(\) removes: pass the response itself"):
            Reader(get(serve(letters("a"))).iter_lines(**options))

    def test_pieces_of_text(self) -> None:
        with pytest.raises(TypeError, match=r"a piece of text 'data: a.*pass bytes"):
            list(Reader(["data: a\n\n"]))

    def test_a_response_that_has_a_reader(
        self, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        response = get(serve(letters("a", "b")))
        reader = Reader(response)
        for wanted in (response, response.raw):
            with pytest.raises(RuntimeError, match="by another Reader or Relay already"):
                Reader(wanted)
        with pytest.raises(RuntimeError, match="by another Reader or Relay already"):
            Relay(response)
        assert list(reader) == [event("a"), event("b")]

    def test_a_body_in_memory_may_be_read_again(
        self, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
    ) -> None:
        response = get(serve(letters("a")), stream=False)
        assert list(Reader(response)) == list(Reader(response)) == [event("a")]

    def test_an_id_that_is_none_or_empty_is_none(self) -> None:
        for last_event_id in (None, ""):
            reader = Reader([b"data: a\n\n"], last_event_id=last_event_id)
            assert reader.last_event_id == ""
            assert reader.read().data == "a"  # type: ignore[union-attr]


@each_case(
    "lines, reads",
    [
        (["text/event-stream", "text/event-stream; charset=utf-8"], True),
        (["text/html", "text/event-stream"], True),
        (["text/event-stream", "text/html"], False),
        (["text/event-stream, text/event-stream"], True),
        (["text/event-stream", "*/*"], True),
    ],
)
def test_the_last_of_several_media_types_counts(
    lines: list[str], reads: bool, serve: Callable[..., FakeSSEServer], get: Callable[..., requests.Response]
) -> None:
    headers = [f"Content-Type: {line}" for line in lines]
    response = get(serve([head(CHUNKED, *headers, content_type=None), chunked(b"data: a\n\n")]))
    if reads:
        assert list(Reader(response)) == [event("a")]
    else:
        with pytest.raises(ContentTypeError):
            Reader(response)
