"""Event: values, what is refused and how, JSON, copies."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
import re

import pytest

from ssesync import EventStream, Writer, open_broker
from ssesync.errors import EventError
from ssesync.event import Event, ReceivedEvent
from ssesync.wire import Decoder, encode

from ...cases import each_case

FULL = Event("a\nb", type="t", id="1", retry=5, comment="c")
NAMES = ("data", "type", "id", "retry", "comment")


class Kind(str, enum.Enum):
    TICK = "tick"


class Number(enum.IntEnum):
    SEVEN = 7


class PlainNumber(int, enum.Enum):
    SEVEN = 7


# Values


def test_nothing_is_set_by_default():
    assert [getattr(Event(), name) for name in NAMES] == [None] * 5


def test_every_field_keeps_its_value():
    assert [getattr(FULL, name) for name in NAMES] == ["a\nb", "t", "1", 5, "c"]


def test_line_ends_in_data_are_kept_until_it_is_written():
    assert Event("a\r\nb\rc\n").data == "a\r\nb\rc\n"


def test_all_but_data_is_given_by_name():
    with pytest.raises(TypeError):
        Event("a", "t")


def test_bytes_are_taken_as_utf8():
    assert Event("é日😀".encode()) == Event("é日😀")
    assert Event(bytearray(b"a")) == Event("a")
    assert Event(b"") == Event("")


def test_an_int_id_is_text_in_decimal():
    assert Event(id=0).id == "0"
    assert Event(id=-12).id == "-12"
    assert Event(id=10**30).id == "1" + "0" * 30


@pytest.mark.parametrize("number", [Number.SEVEN, PlainNumber.SEVEN], ids=["IntEnum", "int_and_Enum"])
def test_a_number_that_is_an_enum_member_counts_as_its_number(number):
    event = Event("a", id=number, retry=number)
    assert (event.id, event.retry) == ("7", 7)
    assert type(event.retry) is int
    assert encode(event) == b"id: 7\nretry: 7\ndata: a\n\n"


def test_text_that_is_an_enum_member_counts_as_its_text():
    event = Event(Kind.TICK, type=Kind.TICK, id=Kind.TICK, comment=Kind.TICK)
    assert {type(getattr(event, name)) for name in ("data", "type", "id", "comment")} == {str}
    assert encode(event) == b": tick\nid: tick\nevent: tick\ndata: tick\n\n"
    assert repr(event) == "Event('tick', type='tick', id='tick', comment='tick')"


def test_empty_text_is_set():
    event = Event("", type="", id="", comment="")
    assert (event.data, event.type, event.id, event.comment) == ("", "", "", "")
    assert event != Event()


# What is refused


@each_case(
    "field, value, why",
    [
        pytest.param("type", "a\nb", "line end", id="lf_in_type"),
        pytest.param("type", "a\rb", "line end", id="cr_in_type"),
        pytest.param("type", "\n", "line end", id="only_lf_in_type"),
        pytest.param("id", "a\nb", "line end", id="lf_in_id"),
        pytest.param("id", "a\rb", "line end", id="cr_in_id"),
        pytest.param("id", "a\0b", "NUL", id="nul_in_id"),
        pytest.param("id", "\0", "NUL", id="only_nul_in_id"),
        pytest.param("retry", -1, "negative", id="negative_retry"),
        pytest.param("data", "a\ud800", "lone surrogate at 1", id="surrogate_in_data"),
        pytest.param("type", "\udfff", "lone surrogate at 0", id="surrogate_in_type"),
        pytest.param("id", "é\ud800", "lone surrogate at 1", id="surrogate_in_id"),
        pytest.param("comment", "\ud83d\ude00", "lone surrogate at 0", id="surrogates_in_comment"),
        pytest.param("data", b"a\xff", "not UTF-8 at byte 1", id="malformed_bytes"),
        pytest.param("data", b"\xed\xa0\x80", "not UTF-8 at byte 0", id="surrogate_in_bytes"),
        pytest.param("data", b"\xe2\x82", "not UTF-8 at byte 0", id="truncated_bytes"),
    ],
)
def test_a_value_that_no_stream_carries_is_refused_by_name_and_value(field, value, why):
    with pytest.raises(EventError, match=why) as caught:
        Event(**{field: value})
    assert caught.value.field == field
    assert caught.value.value == value
    assert f"event field {field!r}" in str(caught.value)
    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_nul_in_data_type_and_comment_is_text():
    assert Event("\0", type="\0", comment="\0").data == "\0"


@each_case(
    "field, value",
    [
        ("data", 5),
        ("data", {"a": 1}),
        ("data", ["a"]),
        ("data", True),
        ("data", 1.5),
        ("data", memoryview(b"a")),
        ("type", b"t"),
        ("type", 5),
        ("type", True),
        ("id", b"1"),
        ("id", 1.0),
        ("id", True),
        ("id", False),
        ("retry", True),
        ("retry", False),
        ("retry", 1.5),
        ("retry", "5"),
        ("retry", b"5"),
        ("comment", 5),
        ("comment", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, memoryview) else repr(value),
)
def test_a_value_of_another_type_is_a_type_error_that_names_field_and_value(field, value):
    with pytest.raises(TypeError) as caught:
        Event(**{field: value})
    assert repr(field) in str(caught.value)
    assert (repr(value) if not isinstance(value, memoryview) else "memoryview") in str(caught.value)


def test_the_error_for_other_data_names_from_json():
    with pytest.raises(TypeError, match=r"Event\.from_json\(\)"):
        Event({"a": 1})


@each_case(
    "fields", [{"id": 10**5000}, {"retry": 10**5000}, {"retry": -(10**5000)}], ids=["id", "retry", "negative_retry"]
)
def test_a_number_of_thousands_of_digits_is_refused_like_any_other_value(fields):
    with pytest.raises(EventError) as caught:
        Event(**fields)
    assert caught.value.field in fields
    assert len(str(caught.value)) < 200


def test_a_long_value_is_cut_in_the_error():
    with pytest.raises(EventError) as caught:
        Event(id="x" * 100_000 + "\n")
    assert len(str(caught.value)) < 200
    assert "100,001 in all" in str(caught.value)
    with pytest.raises(TypeError) as other:
        Event(list(range(100_000)))
    assert len(str(other.value)) < 300


def test_a_value_whose_repr_fails_still_gets_its_error():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(TypeError, match="'data' takes text, got Broken"):
        Event(Broken())


# repr, equality, hash


@each_case(
    "event, expected",
    [
        (Event(), "Event()"),
        (Event("a"), "Event('a')"),
        (Event(""), "Event('')"),
        (FULL, "Event('a\\nb', type='t', id='1', retry=5, comment='c')"),
        (Event(id=""), "Event(id='')"),
        (Event(retry=0), "Event(retry=0)"),
        (Event("'"), 'Event("\'")'),
    ],
)
def test_repr_shows_what_is_set_and_can_be_evaluated(event, expected):
    assert repr(event) == expected
    assert eval(repr(event)) == event


def test_repr_stays_short_whatever_the_data():
    text = repr(Event("x" * 1_000_000, id="i" * 1000, type="t" * 1000, comment="c" * 1000))
    assert len(text) < 500
    assert "1,000,000 in all" in text


def test_events_are_equal_when_all_fields_are():
    assert Event("a", type="t", id=1) == Event(b"a", type="t", id="1")
    for name in NAMES:
        values = {each: getattr(FULL, each) for each in NAMES}
        values[name] = None
        assert Event(**values) != FULL, name
    assert Event("a") != "a"
    assert Event("a") != ("a", None, None, None, None)


def test_equal_events_have_one_hash():
    assert len({FULL, copy.copy(FULL), Event("a"), Event(b"a"), Event(id=1), Event(id="1")}) == 3


def test_a_decoded_event_equals_a_made_one():
    (event,) = Decoder().feed(b"id: 1\nevent: t\ndata: a\n\n")
    assert event == Event("a", type="t", id="1")
    assert hash(event) == hash(Event("a", type="t", id="1"))
    assert {event: 1}[Event("a", type="t", id="1")] == 1


# Copies and immutability


def decoded():
    return Decoder().feed(b"id: 1\nevent: t\ndata: a\n\n")[0]


TO_COPY = each_case("event", [Event(), FULL, Event("é\ud7ff😀\0"), decoded()], ids=["empty", "full", "text", "decoded"])


class TestCopies:
    @TO_COPY
    @each_case("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_an_event_can_be_pickled(self, event, protocol):
        again = pickle.loads(pickle.dumps(event, protocol))
        assert type(again) is type(event)
        assert again == event
        assert encode(again) == encode(event)

    @TO_COPY
    def test_an_event_can_be_copied(self, event):
        assert copy.copy(event) == event
        assert copy.deepcopy(event) == event
        assert copy.deepcopy([event, event])[1] == event

    @TO_COPY
    @each_case("name", NAMES)
    def test_no_field_can_be_set_or_deleted(self, event, name):
        before = repr(event)
        with pytest.raises(AttributeError):
            setattr(event, name, "other")
        with pytest.raises(AttributeError):
            delattr(event, name)
        assert repr(event) == before

    @TO_COPY
    def test_no_attribute_can_be_added(self, event):
        with pytest.raises((AttributeError, TypeError)):
            event.other = 1
        assert not hasattr(event, "__dict__")


# JSON


def test_from_json_writes_compact_json_with_text_as_it_is():
    assert Event.from_json({"a": [1, None, "é\n"], "b": True}).data == '{"a":[1,null,"é\\n"],"b":true}'


def test_from_json_takes_type_id_and_retry():
    assert Event.from_json([], type="t", id=1, retry=5) == Event("[]", type="t", id="1", retry=5)


@each_case("obj", [None, "", 0, False, [], {}], ids=repr)
def test_from_json_writes_what_is_false_too(obj):
    assert Event.from_json(obj).json() == obj


@each_case("number", [float("nan"), float("inf"), float("-inf")])
def test_from_json_refuses_numbers_that_are_not_json(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        Event.from_json({"a": number})


def test_from_json_takes_an_encoder_that_gives_text_or_bytes():
    assert Event.from_json({"a": 1}, dumps=json.dumps).data == '{"a": 1}'
    assert (
        Event.from_json({"a": "é"}, dumps=lambda obj: json.dumps(obj, ensure_ascii=False).encode()).data == '{"a": "é"}'
    )


def test_from_json_refuses_a_lone_surrogate_by_the_field():
    with pytest.raises(EventError, match="'data'"):
        Event.from_json("\ud800")


def test_json_reads_what_from_json_wrote():
    obj = {"a": [1, 2.5, None, True, "é\u2028\r\n"], "b": {}}
    event = Event.from_json(obj)
    assert event.json() == obj
    assert Decoder().feed(encode(event))[0].json() == obj


def test_json_takes_a_decoder():
    assert Event("1.10").json(loads=lambda text: text + "!") == "1.10!"


@each_case("data", ["", "{", "[DONE]", "a\nb"])
def test_json_of_other_text_is_an_event_error_with_the_cause(data):
    with pytest.raises(EventError, match="is not JSON") as caught:
        Event(data).json()
    assert (caught.value.field, caught.value.value) == ("data", data)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


def test_json_without_data_is_an_event_error():
    with pytest.raises(EventError, match="is not set"):
        Event(id="1").json()


class TestParse:
    """Frames that another library has encoded."""

    @each_case(
        "frame, event",
        [
            ("data: a\n\n", Event("a")),
            ("data: a\n", Event("a")),
            ("data: a", Event("a")),
            ("data:a\r\ndata:  b\r\n\r\n", Event("a\n b")),
            ("data: a\rdata\r\r", Event("a\n")),
            ("data\n\n", Event("")),
            ("event: t\nid: 7\nretry: 10\n: c\n:d\ndata: a\n\n", Event("a", type="t", id=7, retry=10, comment="c\nd")),
            ("event: t\nevent: u\nid\ndata: a\n\n", Event("a", type="u", id="")),
            ("retry: 3000\n", Event(retry=3000)),
            (":keep-alive\n\n", Event(comment="keep-alive")),
            ("\n\ndata: a\n\n\n", Event("a")),
            ("data: ü\u2028\x85\n\n".encode(), Event("ü\u2028\x85")),
        ],
        ids=repr,
    )
    def test_it_is_read_as_clients_read_it(self, frame, event):
        assert Event.parse(frame) == event
        assert Event.parse(encode(event)) == event

    @each_case(
        "frame, why",
        [
            ("", "holds no event"),
            ("\n\n", "holds no event"),
            ("data: a\n\ndata: b\n\n", "holds 2 events or comments, and not one: parse each by itself"),
            (": hi\n\ndata: a\n\n", "holds 2 events or comments"),
            ("hello", "is no field of an event stream, got 'hello'"),
            ('{"a": 1}', "is no field of an event stream"),
            ("data: a\nand more\n\n", "is no field of an event stream, got 'and more'"),
            ("Data: a\n\n", "is no field of an event stream"),
            ("retry: soon\ndata: a\n\n", "field 'retry' takes whole milliseconds, in digits, got 'soon'"),
            ("retry: ٣\ndata: a\n\n", "field 'retry'"),
            ("id: a\0b\ndata: a\n\n", "field 'id' can't hold NUL"),
            (b"data: \xff\n\n", "is not UTF-8 at byte 6"),
        ],
        ids=repr,
    )
    def test_what_a_client_would_drop_is_refused(self, frame, why):
        with pytest.raises(EventError, match=re.escape(why)):
            Event.parse(frame)

    @each_case("frame", [None, 5, {"data": "a"}, Event("a")], ids=repr)
    def test_another_type_is_refused(self, frame):
        with pytest.raises(TypeError):
            Event.parse(frame)


def give_to_a_stream(text):
    b"".join(EventStream([text], keep_alive=None))


def publish(text):
    with open_broker("memory://") as broker:
        broker.publish("room", text)


TO_ALL_THAT_ENCODE = each_case(
    "give",
    [
        pytest.param(lambda text: Writer().write(text), id="write"),
        pytest.param(lambda text: Writer().write(text.encode()), id="write bytes"),
        pytest.param(lambda text: Writer().write_event(text), id="write_event"),
        pytest.param(give_to_a_stream, id="yield"),
        pytest.param(publish, id="publish"),
    ],
)


class TestEncodedTwice:
    """Text that is given as data and is a frame already."""

    @TO_ALL_THAT_ENCODE
    @each_case("text", ["data: a\n\n", "event: t\r\ndata: a\r\n\r\n", ": c\ndata: a\n\ndata: b\n\n"])
    def test_it_is_logged_once_with_the_remedy(self, give, text, caplog, monkeypatch):
        monkeypatch.setattr("ssesync.event._warned", False)
        give(text)
        give(text)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert "Event.parse(text)" in warnings[0]
        assert repr(text.partition(":")[0] + ":") in warnings[0]

    @TO_ALL_THAT_ENCODE
    @each_case(
        "text", ["data: a", "data: a\n", "a\n\n", "\n\n", "id: 5\n\n", "data: a\nwell\n\n", "data for you\n\n", ""]
    )
    def test_other_text_is_not(self, give, text, caplog, monkeypatch):
        monkeypatch.setattr("ssesync.event._warned", False)
        give(text)
        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_an_event_is_meant_as_it_is(self, caplog, monkeypatch):
        monkeypatch.setattr("ssesync.event._warned", False)
        Writer().write(Event("data: a\n\n"))
        assert caplog.records == []


# Events that were read


class TestReceived:
    def test_data_type_and_id_are_always_text(self):
        (event,) = Decoder().feed(b"data\n\n")
        assert type(event) is ReceivedEvent
        assert (event.data, event.type, event.id) == ("", "message", "")
        without_id = dataclasses.replace(decoded(), id=None, type=None)
        assert (without_id.type, without_id.id) == ("message", "")

    def test_it_is_equal_to_an_event_with_the_same_fields(self):
        event = ReceivedEvent("a")
        for same in (Event("a", type="message"), Event("a", type="message", id="")):
            assert event == same
            assert same == event
            assert hash(event) == hash(same)
        assert event not in (Event("a"), Event("b", type="message"), Event("a", type="message", id="1"), "a")
        assert Event("a", id="") != Event("a")

    def test_an_empty_id_is_not_written(self):
        assert encode(ReceivedEvent("a")) == encode(Event("a", type="message"))
        assert encode(ReceivedEvent("a", id=7)) == encode(Event("a", type="message", id="7"))
        assert encode(Event("a", id="")).startswith(b"id: \n")
        with open_broker("memory://") as broker:
            assert broker.publish("a", ReceivedEvent("a"))
            with pytest.raises(EventError, match="set by the broker"):
                broker.publish("a", ReceivedEvent("a", id="1"))

    def test_its_repr_makes_it_again(self):
        for event in (ReceivedEvent("a"), ReceivedEvent("", type="t", id="1", retry=5)):
            assert eval(repr(event)) == event
