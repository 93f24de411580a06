"""The mailbox: bounds, order, and that nobody stays blocked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ssesync import CancelToken, CloseReason, StreamClosed
from ssesync.server.mailbox import Mailbox
from ssesync.server.source import END, PENDING, BlockingPull, End, Pending
from ssesync.server.writer import WriterSource

from ...cases import each_case


class Running:
    """A call in a thread, with its result or error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def blocked(self) -> bool:
        """Whether it is still running after a moment. Only ever used to see that something does wait."""
        self._thread.join(0.05)
        return self._thread.is_alive()

    def join(self) -> Any:
        self._thread.join(90)
        assert not self._thread.is_alive(), "still blocked"
        if self.error is not None:
            raise self.error
        return self.result


ALL = 2**20


def take(box: Mailbox) -> bytes | Pending | End:
    """Wait for something to send, as the thread of a server does."""
    return BlockingPull(WriterSource(box, CancelToken())).pull(ALL, 30)


def test_pull_joins_all_that_waits_in_order() -> None:
    box = Mailbox()
    for data in (b"a", b"b", b"c"):
        box.put(data)
    assert box.pending == (3, 3)
    assert box.pull(ALL) == b"abc"
    assert box.pending == (0, 0)


def test_pull_says_that_nothing_is_there() -> None:
    assert Mailbox().pull(ALL) is PENDING


def test_pull_gives_whole_writes_up_to_a_size_and_leaves_the_others() -> None:
    box = Mailbox(max_items=3)
    for data in (b"1234", b"5678", b"90"):
        box.put(data)
    assert box.pull(9) == b"12345678"
    assert box.pending == (1, 2)
    assert box.offer(b"x")
    assert box.pull(2) == b"90"
    assert box.pull(0) == b"x"
    assert box.pending == (0, 0)


def test_a_write_larger_than_requested_is_pulled_whole_and_alone() -> None:
    box = Mailbox()
    box.put(b"x" * 100)
    box.put(b"y")
    assert box.pull(10) == b"x" * 100
    assert box.pull(10) == b"y"


def test_what_a_pull_left_is_sent_before_the_last_write_or_dropped_by_a_cancel() -> None:
    for discard in (False, True):
        box = Mailbox()
        box.put(b"1234")
        box.put(b"5678")
        assert box.pull(4) == b"1234"
        box.close(CloseReason.SHUTDOWN, last=b"last", discard=discard)
        assert box.pull(4) == (END if discard else b"5678last")
        assert box.pull(4) is END


def test_each_write_and_the_end_are_announced() -> None:
    box, calls = Mailbox(), list[int]()
    box.on_ready = lambda: calls.append(1)
    box.put(b"x")
    box.put(b"y")
    assert len(calls) == 2
    box.close(CloseReason.DONE)
    assert len(calls) == 3


def test_put_waits_while_max_items_are_pending_and_then_continues() -> None:
    box = Mailbox(max_items=2)
    box.put(b"1")
    box.put(b"2")
    putting = Running(lambda: box.put(b"3"))
    assert putting.blocked()
    assert box.pull(ALL) == b"12"
    putting.join()
    assert box.pull(ALL) == b"3"


def test_put_waits_while_max_bytes_are_pending() -> None:
    box = Mailbox(max_bytes=10)
    box.put(b"123456")
    putting = Running(lambda: box.put(b"78901"))
    assert putting.blocked()
    box.pull(ALL)
    putting.join()


def test_a_write_larger_than_the_bound_goes_alone() -> None:
    box = Mailbox(max_bytes=10)
    box.put(b"x" * 100)
    assert not box.offer(b"y")
    assert box.pull(ALL) == b"x" * 100


def test_offer_returns_whether_it_was_added_and_never_waits() -> None:
    box = Mailbox(max_items=1)
    assert box.offer(b"1")
    assert not box.offer(b"2")
    assert box.pull(ALL) == b"1"


def test_close_delivers_what_waits_and_then_ends() -> None:
    box = Mailbox()
    box.put(b"x")
    assert box.close(CloseReason.DONE)
    assert box.pull(ALL) == b"x"
    assert box.pull(ALL) is END
    assert box.reason == "done"


def test_close_can_add_a_last_write_even_to_a_full_mailbox() -> None:
    box = Mailbox(max_items=1)
    box.put(b"x")
    box.close(CloseReason.SHUTDOWN, last=b"bye")
    assert box.pull(ALL) == b"xbye"


def test_close_can_drop_what_waits() -> None:
    box = Mailbox()
    box.put(b"x")
    box.close(CloseReason.CLIENT_GONE, discard=True)
    assert box.pull(ALL) is END


@each_case(
    "first, writes, last, dropped, reason",
    [
        pytest.param("done", [b"x"], b"", False, "client_gone", id="a write waits"),
        pytest.param("done", [], b"last", False, "client_gone", id="the last write waits"),
        pytest.param("done", [], b"", True, "client_gone", id="the consumer drops something"),
        pytest.param("done", [], b"", False, "done", id="nothing is dropped"),
        pytest.param("error", [b"x"], b"", False, "error", id="the first end was none of the producer's own"),
    ],
)
def test_a_cancel_that_drops_something_replaces_an_end_of_the_producer(
    first: str, writes: list[bytes], last: bytes, dropped: bool, reason: str
) -> None:
    box = Mailbox()
    for data in writes:
        box.put(data)
    box.close(CloseReason(first), last=last)
    assert not box.close(CloseReason.CLIENT_GONE, discard=True, dropped=dropped)
    assert not box.close(CloseReason.CANCELLED, discard=True)
    assert box.pending == (0, 0)
    assert box.pull(ALL) is END
    assert box.reason == reason


def test_what_a_pull_has_taken_is_dropped_by_a_cancel_that_interrupts_it() -> None:
    """The pull alone knows that something was dropped: as a signal handler, the cancel finds nothing that waits."""

    class Interrupted(Mailbox):
        def _first(self, most: int) -> list[bytes]:
            items = super()._first(most)
            self.close(CloseReason.CANCELLED, discard=True)
            return items

    box = Interrupted()
    box.put(b"1234")
    box.put(b"")
    box.close(CloseReason.DONE)
    assert box.pull(3) is END
    assert box.reason == "cancelled"


@pytest.mark.parametrize("call", ["put", "offer"])
def test_writing_to_a_closed_mailbox_raises_with_the_reason(call: str) -> None:
    box = Mailbox()
    box.close(CloseReason.OVERFLOW)
    with pytest.raises(StreamClosed) as caught:
        getattr(box, call)(b"x")
    assert caught.value.reason == "overflow"


def test_close_wakes_a_producer_that_waits_on_a_full_mailbox() -> None:
    box = Mailbox(max_items=1)
    box.put(b"1")
    putting = Running(lambda: box.put(b"2"))
    assert putting.blocked()
    box.close(CloseReason.CLIENT_GONE, discard=True)
    with pytest.raises(StreamClosed, match="client_gone"):
        putting.join()


def test_close_wakes_a_server_that_waits_for_something_to_send() -> None:
    box = Mailbox()
    taking = Running(lambda: take(box))
    assert taking.blocked()
    box.close(CloseReason.DONE)
    assert taking.join() is END


def test_wait_ends_on_a_write_on_close_and_when_the_time_is_over() -> None:
    box = Mailbox()
    assert not box.wait(0.01)
    waiting = Running(lambda: box.wait(90))
    box.put(b"x")
    assert waiting.join() is True
    box.pull(ALL)
    box.close(CloseReason.DONE)
    assert box.wait(90)


def test_many_producers_and_one_taker_lose_and_reorder_nothing() -> None:
    box = Mailbox(max_items=7, max_bytes=50)
    count = 500

    def produce(name: int) -> None:
        for number in range(count):
            box.put(b"%d:%d " % (name, number))

    producers = [Running(lambda name=name: produce(name)) for name in range(4)]  # type: ignore[misc]
    seen: dict[bytes, list[int]] = {b"%d" % name: [] for name in range(4)}
    while sum(map(len, seen.values())) < 4 * count:
        pulled = take(box)
        assert isinstance(pulled, bytes), "a write got lost"
        assert len(pulled.split()) <= 7
        for item in pulled.split():
            name, _, number = item.partition(b":")
            seen[name].append(int(number))
    for producer in producers:
        producer.join()
    assert all(numbers == list(range(count)) for numbers in seen.values())
    assert box.events == 4 * count
