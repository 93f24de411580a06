"""A drain, and streams that another process may take over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from ssesync import drain
from ssesync.server import transferring
from ssesync.server.detaching import Detached, Served
from ssesync.server.registry import streams
from ssesync.server.shutdown import drain_quickly
from tests.servers import eventually

from .draining import undo_drain
from .test_shutdown import served


class Transfer:
    """Moves nothing, until the test says that it is over."""

    def __init__(self, *movable: object) -> None:
        self.movable = movable
        self.over: list[Callable[[], object]] = []
        self.is_over = False

    def begin(self, since: float, over: Callable[[], object]) -> None:
        assert since == streams.stopping_since
        self.over.append(over)

    def may_move(self, stream: Served | Detached) -> bool:
        return stream in self.movable and not self.is_over

    def abandon(self) -> None:
        self.is_over = True

    def seconds_to_move(self) -> float | None:
        return None if self.is_over else 5.0

    def end(self) -> None:
        self.is_over = True
        for call in self.over:
            call()


@pytest.fixture(autouse=True)
def before_and_after() -> Iterator[None]:
    yield
    transferring._transfers.clear()
    undo_drain()


def registered(*movable: object) -> Transfer:
    transfer = Transfer(*movable)
    transferring.register_transfer(transfer)
    return transfer


def test_a_drain_ends_no_stream_that_may_move_until_the_transfer_is_over() -> None:
    moves, ends = served(), served()
    transfer = registered(moves)
    drain()
    assert ends.reason == "shutdown"
    assert moves.reason is None
    assert transferring.seconds_to_move() == 5.0
    transfer.end()
    assert eventually(lambda: moves.reason == "shutdown")
    assert transferring.seconds_to_move() is None


def test_a_stream_that_begins_to_move_later_is_ended_by_the_drain() -> None:
    stream = served()
    transfer = registered(stream)
    drain()
    transfer.abandon()  # without a call: the next tick ends the stream
    assert eventually(lambda: stream.reason == "shutdown")


def test_a_quick_stop_moves_nothing() -> None:
    stream = served()
    transfer = registered(stream)
    drain_quickly()
    assert transfer.is_over
    assert not transfer.over
    assert stream.reason == "shutdown"


def test_a_quick_stop_after_another_one_ends_what_has_not_moved() -> None:
    stream = served()
    registered(stream)
    drain()
    assert stream.reason is None
    drain_quickly()
    assert stream.reason == "shutdown"


def test_several_transfers_are_asked() -> None:
    first, second = served(), served()
    transfers = [registered(first), registered(second)]
    drain()
    assert first.reason is second.reason is None
    transfers[0].end()
    assert eventually(lambda: first.reason == "shutdown")
    assert second.reason is None
    assert transferring.seconds_to_move() == 5.0


def test_a_forked_child_has_none() -> None:
    registered()
    if not (child := os.fork()):
        os._exit(len(transferring._transfers))
    assert os.waitpid(child, 0)[1] == 0
