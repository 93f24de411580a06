"""What was encoded and decoded again is the same event; what can't be is refused."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from ssesync.errors import EventError, excerpt
from ssesync.event import Event
from ssesync.wire import KEEP_ALIVE, encode
from tests.profiles import times

from .helpers import Outcome, decode, message, pieces

PARTS = [
    *("", "a", " ", "  ", ":", ": ", "data: ", "id: 9", "event: forged", "retry: 1", ":comment", "data"),
    *("\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r", "\ndata: forged\n\n", "\rid: forged\r\r"),
    *("\0", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\ufeff", "\ufffd", "\t", "\x7f"),
    *("é", "日", "😀", "\ud800", "\udfff", "x" * 300),
]
fragments = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)
texts = st.one_of(fragments, st.text(max_size=20))
good_texts = texts.filter(lambda text: not re.search("[\ud800-\udfff]", text))
one_line = good_texts.map(lambda text: re.sub("[\r\n]", "", text))
places = st.lists(st.integers(0, 3000), max_size=8)
events = st.builds(
    Event,
    st.none() | good_texts,
    type=st.none() | one_line,
    id=st.none() | one_line.map(lambda text: text.replace("\0", "")) | st.integers(),
    retry=st.none() | st.integers(0, 10**18),
    comment=st.none() | good_texts,
)


def lines(text):
    return re.split("\r\n|\r|\n", text)


def reads_as(sent):
    """What a clean decoder must give for these events, by the encoder's promise."""
    result = Outcome([])
    last_id = None
    for event in sent:
        if event.comment is not None:
            result.events += [Event(comment=line) for line in lines(event.comment)]
        if event.retry is not None:
            result.retry = event.retry
        last_id = event.id if event.id is not None else last_id
        if event.data is not None:
            result.events.append(message("\n".join(lines(event.data)), last_id, event.type or "message"))
    result.last_event_id = last_id or ""
    return result


@given(events, places)
@times(15)
@example(Event("a\r\nb\rc\n"), [])
@example(Event("", type="", id=""), [])
@example(Event("\ufeff", id="\ufeff", type="\ufeff"), [])
def test_an_event_is_read_as_it_was_written(event, at):
    stream = encode(event)
    assert decode(pieces(stream, at), comments=True) == reads_as([event])


@given(st.lists(events, max_size=6), places)
@times(8)
def test_events_one_after_the_other_are_read_as_they_were_written(sent, at):
    stream = b"".join(map(encode, sent))
    assert decode(pieces(stream, at), comments=True) == reads_as(sent)


@given(st.lists(events.filter(lambda event: event.data is not None), max_size=6), places)
@times(3)
def test_keep_alives_between_events_change_nothing(sent, at):
    stream = KEEP_ALIVE + b"".join(encode(event) + KEEP_ALIVE for event in sent)
    expected = reads_as(sent)
    expected.events = [event for event in expected.events if event.data is not None]
    assert decode(pieces(stream, at)) == expected


@given(events)
@times(5)
def test_what_was_read_is_written_and_read_again_without_a_change(event):
    for read in decode([encode(event)]).events:
        assert decode([encode(read)]).events == [read]


FIELDS = ("data", "type", "id", "comment")


@given(st.sampled_from(FIELDS), texts)
@times(25)
def test_text_is_refused_by_name_or_read_as_exactly_that_event(field, text):
    forbidden = {"data": "", "comment": "", "type": "\r\n", "id": "\r\n\0"}[field] + "".join(
        map(chr, range(0xD800, 0xE000))
    )
    values = {"data": "d", field: text}
    try:
        event = Event(**values)
    except EventError as error:
        refused = error
    else:
        assert not set(text) & set(forbidden)
        assert decode([encode(event)], comments=True) == reads_as([event])
        assert getattr(event, field) == text
        return
    assert set(text) & set(forbidden)
    assert refused.field == field
    assert refused.value == text
    assert repr(field) in str(refused)
    assert excerpt(text) in str(refused)


@given(st.binary(max_size=12))
@times(10)
@example(b"\xed\xa0\x80")
@example(b"\xff")
def test_bytes_are_refused_or_read_as_exactly_that_text(raw):
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = None
    try:
        event = Event(raw)
    except EventError as error:
        refused = error
    else:
        assert event == Event(text)
        assert decode([encode(event)]) == reads_as([event])
        return
    assert text is None
    assert (refused.field, refused.value) == ("data", raw)
    assert repr(raw) in str(refused)
