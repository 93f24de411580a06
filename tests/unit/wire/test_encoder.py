"""The encoder: exact bytes, and what other people's decoders make of them."""

from __future__ import annotations

import httpx
import httpx_sse
import pytest
from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from ssesync.errors import EventError
from ssesync.event import Event
from ssesync.wire import KEEP_ALIVE, Decoder, encode, encode_comment
from ssesync.wire.encoder import encode_keep_alive

from ...cases import each_case
from .helpers import decode, message

EXACT = {
    "data": (Event("a"), b"data: a\n\n"),
    "empty_data_is_one_line": (Event(""), b"data: \n\n"),
    "leading_space_survives": (Event(" a"), b"data:  a\n\n"),
    "trailing_space_survives": (Event("a "), b"data: a \n\n"),
    "lf": (Event("a\nb"), b"data: a\ndata: b\n\n"),
    "cr": (Event("a\rb"), b"data: a\ndata: b\n\n"),
    "cr_lf": (Event("a\r\nb"), b"data: a\ndata: b\n\n"),
    "lf_cr": (Event("a\n\rb"), b"data: a\ndata: \ndata: b\n\n"),
    "cr_cr_lf": (Event("a\r\r\nb"), b"data: a\ndata: \ndata: b\n\n"),
    "trailing_newline_is_one_more_line": (Event("a\n"), b"data: a\ndata: \n\n"),
    "trailing_cr_lf_is_one_more_line": (Event("a\r\n"), b"data: a\ndata: \n\n"),
    "leading_newline": (Event("\na"), b"data: \ndata: a\n\n"),
    "only_a_newline": (Event("\n"), b"data: \ndata: \n\n"),
    "blank_line_inside": (Event("a\n\nb"), b"data: a\ndata: \ndata: b\n\n"),
    "nul": (Event("a\0b"), b"data: a\0b\n\n"),
    "utf8": (Event("é日😀"), "data: é日😀\n\n".encode()),
    "bom": (Event("\ufeffa"), b"data: \xef\xbb\xbfa\n\n"),
    "data_like_a_field": (Event("id: 1\nevent: x"), b"data: id: 1\ndata: event: x\n\n"),
    **{
        f"not_cut_at_{ord(char):04x}": (Event(f"a{char}b"), f"data: a{char}b\n\n".encode())
        for char in "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    },
    "type": (Event("a", type="t"), b"event: t\ndata: a\n\n"),
    "empty_type_is_written": (Event("a", type=""), b"event: \ndata: a\n\n"),
    "id": (Event("a", id="1"), b"id: 1\ndata: a\n\n"),
    "int_id": (Event("a", id=1), b"id: 1\ndata: a\n\n"),
    "negative_int_id": (Event("a", id=-1), b"id: -1\ndata: a\n\n"),
    "empty_id_is_written": (Event("a", id=""), b"id: \ndata: a\n\n"),
    "id_with_leading_space": (Event("a", id=" 1"), b"id:  1\ndata: a\n\n"),
    "retry": (Event("a", retry=5), b"retry: 5\ndata: a\n\n"),
    "retry_zero": (Event("a", retry=0), b"retry: 0\ndata: a\n\n"),
    "comment": (Event("a", comment="c"), b": c\ndata: a\n\n"),
    "comment_of_two_lines": (Event(comment="c\r\nd"), b": c\n: d\n"),
    "comment_like_a_field": (Event(comment="c\ndata: x\n\n"), b": c\n: data: x\n: \n: \n"),
    "everything": (
        Event("a\nb", type="t", id="1", retry=5, comment="c"),
        b": c\nid: 1\nevent: t\nretry: 5\ndata: a\ndata: b\n\n",
    ),
    "nothing": (Event(), b""),
    "comment_alone_has_no_blank_line": (Event(comment="c"), b": c\n"),
    "empty_comment": (Event(comment=""), b": \n"),
    "retry_alone_has_no_blank_line": (Event(retry=5), b"retry: 5\n"),
    "comment_and_retry_have_no_blank_line": (Event(comment="c", retry=5), b": c\nretry: 5\n"),
    "id_alone_has_one": (Event(id="1"), b"id: 1\n\n"),
    "type_alone_has_one": (Event(type="t"), b"event: t\n\n"),
    "bytes": (Event("é".encode()), b"data: \xc3\xa9\n\n"),
    # "Seen elsewhere"
    "hertz_empty_data": (Event(""), b"data: \n\n"),
    "hertz_trailing_newline": (Event("a\n"), b"data: a\ndata: \n\n"),
    "flask_sse_u2028": (Event("a\u2028b"), "data: a\u2028b\n\n".encode()),
    "flask_sse_trailing_newline": (Event("a\n", type="t"), b"event: t\ndata: a\ndata: \n\n"),
    "flask_sse_empty_data": (Event("", type="t"), b"event: t\ndata: \n\n"),
}


@each_case("event, expected", EXACT.values(), ids=EXACT)
def test_exact_bytes(event, expected):
    assert encode(event) == expected


@each_case("field", ["type", "id"])
@each_case("line_end", ["\n", "\r", "\r\n"])
@each_case("text", ["x{}data: forged", "{}x", "x{}", "{}"])
def test_flask_sse_newline_in_type_or_id_is_refused_and_forges_nothing(field, line_end, text):
    value = text.format(line_end)
    with pytest.raises(EventError, match=f"'{field}'") as caught:
        Event("a", **{field: value})
    assert caught.value.field == field
    assert caught.value.value == value
    assert repr(value) in str(caught.value)


def test_text_that_formats_as_something_else_forges_nothing():
    class Liar(str):
        __slots__ = ()

        def __str__(self):
            return "x\ndata: forged\n\n"

        __repr__ = __str__

        def __format__(self, spec):
            return str(self)

        def __contains__(self, part):
            return False

    event = Event(Liar("a"), type=Liar("t"), id=Liar("1"), comment=Liar("c"))
    assert encode(event) == b": c\nid: 1\nevent: t\ndata: a\n\n"
    with pytest.raises(EventError):
        Event("a", type=Liar("t\ndata: forged"))


def test_comments_have_one_colon_a_line_and_no_blank_line():
    assert encode_comment("a") == b": a\n"
    assert encode_comment("") == b": \n"
    assert encode_comment("a\n\nb\r") == b": a\n: \n: b\n: \n"
    assert decode([encode_comment("a\n\nb")], comments=True).events == [
        Event(comment="a"),
        Event(comment=""),
        Event(comment="b"),
    ]


def test_a_comment_with_a_lone_surrogate_is_refused():
    with pytest.raises(EventError, match="'comment'"):
        encode_comment("\ud800")


# What clients make of it. The stream ends in an event, so that what a client forges would show.


def test_a_keep_alive_that_is_an_event_changes_no_id():
    assert encode_keep_alive(None) == KEEP_ALIVE
    stream = encode(Event("a", id="1")) + encode_keep_alive("ping") + encode(Event("b"))
    assert decode([stream]).events == [message("a", "1"), Event("", type="ping", id="1"), message("b", "1")]


STREAM = encode(Event("a", id="1")) + KEEP_ALIVE + KEEP_ALIVE + encode(Event("b", type="t")) + KEEP_ALIVE


def test_a_keep_alive_is_one_comment_line_and_one_newline():
    assert KEEP_ALIVE == b":keep-alive\n"


def test_a_keep_alive_is_invisible_to_our_decoder():
    assert decode([STREAM]).events == [message("a", "1"), message("b", "1", "t")]
    assert decode([KEEP_ALIVE]).events == []


def test_a_keep_alive_inside_an_event_is_invisible_to_our_decoder():
    assert decode([b"id: 1\n", KEEP_ALIVE, b"data: a\n", KEEP_ALIVE, b"\n"]).events == [message("a", "1")]


def test_a_keep_alive_is_a_comment_if_comments_are_returned():
    assert Decoder(comments=True).feed(KEEP_ALIVE) == [Event(comment="keep-alive")]


def test_a_keep_alive_is_invisible_to_httpx_sse_even_after_an_id():
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=STREAM)
    events = [(each.event, each.data, each.id) for each in httpx_sse.EventSource(response).iter_sse()]
    assert events == [("message", "a", "1"), ("t", "b", "1")]


def test_a_blank_line_after_a_keep_alive_would_show_in_httpx_sse():
    # The reason for all this: should it ever fail, httpx-sse is mended.
    lines, decoder = SSELineDecoder(), SSEDecoder()
    stream = encode(Event("a", id="1")) + KEEP_ALIVE + b"\n"
    events = [event for line in lines.decode(stream.decode()) if (event := decoder.decode(line))]
    assert [event.data for event in events] == ["a", ""]
    assert [event.data for event in decode([stream]).events] == ["a"]


@each_case(
    "extra",
    [Event(comment="c"), Event(retry=5), Event(comment="c", retry=5), Event()],
    ids=["comment", "retry", "both", ""],
)
def test_what_dispatches_nothing_is_invisible_to_httpx_sse(extra):
    stream = encode(Event("a", id="1")) + encode(extra) + encode(Event("b"))
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=stream)
    assert [each.data for each in httpx_sse.EventSource(response).iter_sse()] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [None, 1, 5])
def test_a_keep_alive_is_invisible_to_openai_even_after_an_id(cut):
    # openai is among the peers to measure against, not among the tests' dependencies.
    streaming = pytest.importorskip("openai._streaming")
    size = cut or len(STREAM)
    chunks = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    events = [(each.event, each.data, each.id) for each in streaming.SSEDecoder().iter_bytes(iter(chunks))]
    assert events == [(None, "a", "1"), ("t", "b", "1")]
