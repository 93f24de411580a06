"""The states of a served stream."""

from __future__ import annotations

import pytest

from ssesync import CloseReason, EventStream
from ssesync.server.lifecycle import _TRANSITIONS, Lifecycle, State

from ...cases import each_case
from .test_stream import environ


def test_a_stream_goes_through_its_states() -> None:
    stream = EventStream(["x"])
    lifecycle = stream._lifecycle
    assert lifecycle.state is State.CREATED
    stream.open(environ())
    assert lifecycle.state is State.OPEN
    next(stream)
    assert lifecycle.state is State.SENDING
    assert not stream.closed
    list(stream)
    assert lifecycle.state is State.ENDED
    assert stream.closed


@each_case("state", State)
def test_only_what_the_table_has_is_a_transition(state: State) -> None:
    for other in State:
        lifecycle = Lifecycle()
        lifecycle._state = state
        if other in _TRANSITIONS[state] - {State.ENDED}:
            lifecycle.advance(other)
            assert lifecycle.state is other
        elif other is not State.ENDED:
            with pytest.raises(AssertionError):
                lifecycle.advance(other)


def test_the_end_comes_once_from_any_state_and_stays() -> None:
    lifecycle = Lifecycle()
    assert not lifecycle.is_over
    assert lifecycle.end()
    assert not lifecycle.end()
    assert lifecycle.is_over
    lifecycle.advance(State.OPEN)  # the server's thread was on its way
    assert lifecycle.state is State.ENDED


def test_a_detached_stream_is_over_for_its_server() -> None:
    lifecycle = Lifecycle()
    for state in (State.OPEN, State.SENDING, State.DETACHED):
        lifecycle.advance(state)
    assert lifecycle.is_over


def test_the_first_request_to_end_counts() -> None:
    lifecycle = Lifecycle()
    lifecycle.request_end(CloseReason.SHUTDOWN, b"last")
    lifecycle.request_end(CloseReason.CANCELLED, None)
    assert lifecycle.request == (CloseReason.SHUTDOWN, b"last")
