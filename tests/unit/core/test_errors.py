"""The errors: their family, what they keep and say, that they survive a process boundary."""

from __future__ import annotations

import copy
import pickle

import pytest

from ssesync import errors
from ssesync.errors import (
    CloseReason,
    ConnectionLost,
    ContentTypeError,
    EventError,
    EventTooLarge,
    IdleTimeout,
    IncompleteStream,
    ReadError,
    ResponseError,
    SettingsError,
    SSEError,
    StatusError,
    StreamClosed,
    excerpt,
)
from ssesync.event import Event

from ...cases import each_case


@each_case(
    "error, bases",
    [
        (EventError, (SSEError, ValueError)),
        (EventTooLarge, (SSEError,)),
        (SettingsError, (SSEError, ValueError)),
        (StreamClosed, (SSEError,)),
        (ReadError, (SSEError,)),
        (ResponseError, (ReadError,)),
        (StatusError, (ResponseError,)),
        (ContentTypeError, (ResponseError,)),
        (IdleTimeout, (ReadError, TimeoutError, OSError)),
        (ConnectionLost, (ReadError, ConnectionError, OSError)),
        (IncompleteStream, (ReadError,)),
    ],
)
def test_an_error_is_caught_as_its_family_and_as_the_built_in_it_is(error, bases):
    for base in bases:
        assert issubclass(error, base)


def test_every_public_error_is_an_sse_error():
    for name in errors.__all__:
        assert name == "CloseReason" or issubclass(getattr(errors, name), SSEError)


def test_event_too_large_says_size_limit_and_remedy():
    error = EventTooLarge(20_000_001, 20_000_000)
    assert (error.size, error.limit, error.events) == (20_000_001, 20_000_000, [])
    assert "20,000,001" in str(error)
    assert "max_event_size=20,000,000" in str(error)
    assert "raise max_event_size" in str(error)


def test_event_error_says_field_reason_and_value():
    error = EventError("id", "a\n", "can't hold a line end")
    assert str(error) == "event field 'id' can't hold a line end, got 'a\\n'"


@each_case("reason", list(CloseReason))
def test_a_close_reason_is_its_own_text(reason):
    assert reason == reason.value == str(reason) == f"{reason}"
    assert CloseReason(reason.value) is reason
    assert reason.name.lower() == reason.value


@pytest.mark.parametrize("given", ["client_gone", CloseReason.CLIENT_GONE])
def test_stream_closed_keeps_its_reason_however_it_was_given(given):
    error = StreamClosed(given)
    assert error.reason is CloseReason.CLIENT_GONE
    assert str(error) == "the stream is closed: client_gone"


def test_stream_closed_takes_no_reason_that_does_not_exist():
    with pytest.raises(ValueError, match="bored"):
        StreamClosed("bored")


ERRORS = [
    SSEError("s"),
    EventError("id", "a\n", "can't hold a line end"),
    EventTooLarge(11, 10, [Event("a", id="1")]),
    SettingsError("no such setting"),
    StreamClosed("stalled"),
    ReadError("r"),
    ResponseError("not an event stream", None, b"body"),
    StatusError("503", None, b"body"),
    ContentTypeError("text/html", None, b"<html>"),
    IdleTimeout("nothing for 30 s"),
    ConnectionLost("broken"),
    IncompleteStream("no [DONE]"),
]


@each_case("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_can_be_pickled_and_copied(error):
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    for again in [copy.copy(error), copy.deepcopy(error)] + [pickle.loads(pickle.dumps(error, p)) for p in protocols]:
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.args == error.args
        assert vars(again) == vars(error)


@each_case(
    "value, expected",
    [
        ("a", "'a'"),
        (b"a", "b'a'"),
        (5, "5"),
        ("x" * 60, repr("x" * 60)),
        ("x" * 61, repr("x" * 60) + "… (61 in all)"),
        (b"x" * 1500, repr(b"x" * 60) + "… (1,500 in all)"),
        (list(range(1000)), repr(list(range(1000)))[:60] + "…"),
    ],
)
def test_an_excerpt_is_the_repr_cut_short(value, expected):
    assert excerpt(value) == expected
