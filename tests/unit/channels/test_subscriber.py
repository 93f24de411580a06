"""The subscriber by itself: what it gives of its queue and of the log, in which state, and how it ends."""

from __future__ import annotations

import math

import pytest

from ssesync import BrokerClosed, BrokerDamaged, BrokerError, BrokerUnavailable, CloseReason
from ssesync.channels.dispatcher import Dispatcher, Registration
from ssesync.channels.log import Page
from ssesync.channels.message import Message
from ssesync.channels.policy import Policy
from ssesync.channels.subscriber import State, Subscriber
from ssesync.server.source import PENDING

from .subscribers import ScriptedLog, live, message, offer, page, seqs_of
from .test_overflow import data_of


def test_a_message_that_is_offered_twice_or_from_before_the_start_is_given_once() -> None:
    subscriber = live()
    subscriber.start("e", 3, from_log=False)
    assert offer(subscriber, 2, 3, 4, 4, 5, 4)
    assert subscriber.poll() == [message(4), message(5)]
    assert subscriber.position == ("e", 5)


def test_as_many_bytes_are_taken_as_requested_and_the_rest_later() -> None:
    subscriber = live()
    subscriber.offer([message(seq) for seq in range(1, 6)])
    assert seqs_of(subscriber.poll(2 * len(message(1)))) == [1, 2]
    assert subscriber.pending == (3, 3 * len(message(1)))
    assert subscriber.position == ("e", 2)
    assert seqs_of(subscriber.poll(1)) == [3]  # one, however long it is
    offer(subscriber, 6)
    assert seqs_of(subscriber.poll()) == [4, 5, 6]


def test_as_many_bytes_of_coalesced_messages_are_taken_as_requested() -> None:
    subscriber = live(overflow="coalesce", coalesce=lambda event: event.id, max_pending_events=3)
    offer(subscriber, 1, 2, 3)
    subscriber._queue._coalesce({seq: seq for seq in (1, 2, 3)})
    assert seqs_of(subscriber.poll(1)) == [1]
    offer(subscriber, 4)
    assert seqs_of(subscriber.poll()) == [2, 3, 4]


def test_what_is_offered_while_the_log_is_read_follows_what_was_read() -> None:
    log = ScriptedLog(page(1, 2), during=lambda: offer(subscriber, 2, 3))
    subscriber = live(log)
    subscriber.start("e", 0, from_log=True)
    assert subscriber.poll() == []
    assert subscriber.state is State.CATCHING_UP
    offer(subscriber, 2)
    assert subscriber.poll() == []  # not before what comes first
    assert seqs_of(subscriber.read()) == [1, 2, 3]
    assert subscriber.state is State.LIVE
    assert log.reads == [("e", 0)]


def test_what_was_left_out_while_the_log_was_read_makes_it_be_read_again() -> None:
    log = ScriptedLog(page(1), page(2, 3), during=lambda: offer(subscriber, 2, 3))
    subscriber = live(log, max_pending_events=1, patience=60)
    subscriber.start("e", 0, from_log=True)
    assert seqs_of(subscriber.read()) == [1]
    assert subscriber.state is State.CATCHING_UP_OVERRUN
    assert subscriber.poll() == []
    assert subscriber.state is State.CATCHING_UP
    assert seqs_of(subscriber.read()) == [2, 3]
    assert subscriber.state is State.LIVE
    assert log.reads == [("e", 0), ("e", 1)]


def test_a_page_that_is_not_the_last_leaves_it_reading() -> None:
    subscriber = live(ScriptedLog(page(1, 2, complete=False), page()))
    subscriber.start("e", 0, from_log=True)
    assert seqs_of(subscriber.read()) == [1, 2]
    assert subscriber.state is State.CATCHING_UP
    assert subscriber.read() == []
    assert subscriber.state is State.LIVE
    assert subscriber.position == ("e", 2)


def test_what_was_missed_is_read_after_what_waits() -> None:
    subscriber = live(ScriptedLog(page(2, 3)))
    offer(subscriber, 1)
    subscriber.missed(["a"])
    assert subscriber.state is State.DRAINING
    assert offer(subscriber, 3)
    assert seqs_of(subscriber.poll()) == [1]
    assert subscriber.poll() == []
    assert subscriber.state is State.CATCHING_UP
    assert seqs_of(subscriber.read()) == [2, 3]
    assert subscriber.state is State.LIVE


def test_what_was_missed_before_the_start_is_read() -> None:
    subscriber = Subscriber(ScriptedLog(page(4)), Policy())
    subscriber.missed(None)  # after it was attached, before the log's head was asked for
    subscriber.start("e", 3, from_log=False)
    assert subscriber.poll() == []
    assert subscriber.state is State.CATCHING_UP
    assert seqs_of(subscriber.read()) == [4]


def test_a_log_that_began_anew_is_one_reset_and_makes_what_was_read_of_the_old_one_void() -> None:
    def begin_anew() -> None:
        subscriber.restarted("f", 2)
        subscriber.restarted("f", 2)
        subscriber.offer([message(3, "new", "f")])

    subscriber = live(ScriptedLog(page(8), during=begin_anew))
    subscriber.start("e", 7, from_log=True)
    assert subscriber.read() == []
    assert data_of(subscriber.poll()) == ['{"reason":"restarted"}', "new"]
    assert subscriber.position == ("f", 3)


def test_a_read_of_before_it_was_started_anew_is_void() -> None:
    subscriber = live(ScriptedLog(page(8), during=lambda: subscriber.start("e", 2, from_log=True)))
    subscriber.start("e", 7, from_log=True)
    assert subscriber.read() == []
    assert subscriber.position == ("e", 2)
    assert subscriber.state is State.CATCHING_UP


def test_while_it_reads_the_log_its_last_bytes_come_without_what_comes_after_the_gap() -> None:
    subscriber = live()
    subscriber.start("e", 0, from_log=True)
    offer(subscriber, 5)
    subscriber.close(CloseReason.SHUTDOWN, last=b"retry: 1\n")
    assert subscriber.poll() == [b"retry: 1\n"]
    assert subscriber.poll() is subscriber.reason


def test_last_bytes_come_after_all_that_waits_however_it_is_taken() -> None:
    subscriber = live()
    offer(subscriber, 1, 2)
    subscriber.close(CloseReason.SHUTDOWN, last=b"retry: 1\n")
    assert not offer(subscriber, 3)
    assert subscriber.poll(1) == [message(1)]
    assert subscriber.state is State.ENDING
    assert subscriber.poll(1) == [message(2), b"retry: 1\n"]
    assert subscriber.state is State.ENDED
    assert subscriber.poll() is subscriber.reason


def test_the_first_end_counts_and_a_later_one_can_drop_what_waits() -> None:
    subscriber = live()
    offer(subscriber, 1)
    assert subscriber.close(CloseReason.SHUTDOWN, last=b"retry: 1\n")
    assert not subscriber.close(CloseReason.REVOKED)
    assert subscriber.reason is CloseReason.SHUTDOWN
    assert subscriber.poll() == [b"retry: 1\n"]
    assert subscriber.poll() is subscriber.reason


def test_a_right_that_was_taken_back_drops_a_reset_too() -> None:
    subscriber = live()
    subscriber.restarted("f", 2)
    subscriber.close(CloseReason.REVOKED)
    assert subscriber.poll() is subscriber.reason


def test_a_sink_is_detached_by_a_thread_that_holds_the_dispatcher() -> None:
    # As a destructor would that the garbage collector runs in the middle of anything.
    dispatcher = Dispatcher()
    subscriber = live()
    dispatcher.register(subscriber, Registration(("a",), (), None, subscriber))
    with dispatcher._held():
        dispatcher.remove(subscriber)
        assert len(dispatcher) == 1
    assert len(dispatcher) == 0


def lost(why: str, epoch: str, head: int) -> Page:
    return Page([], True, why, epoch, head)


@pytest.mark.parametrize("restarted_later", [True, False])
def test_numbers_of_an_old_log_hide_nothing_of_a_new_one(restarted_later: bool) -> None:
    # The log is another one, as the reader finds before the listener does.
    subscriber = live(ScriptedLog(lost("unknown", "f", 3)))
    offer(subscriber, 1000)
    subscriber.poll()
    subscriber.missed()
    subscriber.poll()
    if restarted_later:
        offer(subscriber, 1001)
    assert data_of(subscriber.read()) == ['{"reason":"unknown"}']
    if restarted_later:
        offer(subscriber, 1002)
        subscriber.restarted("f", 3)
    subscriber.offer([message(4, "new", "f")])
    assert data_of(subscriber.poll()) == ["new"]


def test_what_came_of_the_log_while_an_unknown_id_was_looked_for_is_given() -> None:
    subscriber = live(ScriptedLog(lost("unknown", "e", 3)))
    subscriber.start("", 0, from_log=True)
    subscriber.poll()
    offer(subscriber, 3, 4)
    assert seqs_of(subscriber.read()) == [3, 4]  # the reset, and what follows
    offer(subscriber, 4, 5)
    assert subscriber.poll() == [message(5)]


@pytest.mark.parametrize("shared", [False, True])
def test_one_that_is_too_slow_for_the_log_ends_unless_it_reads_for_many(shared: bool) -> None:
    log = ScriptedLog(lost("trimmed", "e", 9))
    subscriber = Subscriber(log, Policy(max_pending_events=1, patience=60), shared=shared)
    subscriber.start("e", 0, from_log=False)
    offer(subscriber, 1, 2)
    assert subscriber.state is State.LAGGING_OVERRUN
    assert subscriber.poll() == []
    assert subscriber.state is State.LAGGING
    if shared:
        assert data_of(subscriber.read()) == ['{"reason":"trimmed"}']
        assert subscriber.state is State.LIVE
    else:
        assert subscriber.read() == []
        assert subscriber.reason is CloseReason.OVERFLOW
        assert subscriber.poll() is subscriber.reason
    assert log.counters == ({"resets": 1} if shared else {"disconnected": 1})


def test_a_log_that_can_not_be_read_is_logged_once_and_read_again(caplog: pytest.LogCaptureFixture) -> None:
    fails = BrokerUnavailable("no\nserver")
    subscriber = live(ScriptedLog(fails, fails, page(1), fails))
    subscriber.start("e", 0, from_log=True)
    for _ in range(2):
        assert subscriber.read() is None
        assert subscriber._reader.retry_at > 0
        assert subscriber.state is State.CATCHING_UP
    assert len(caplog.records) == 1
    assert "no\\nserver" in caplog.text
    assert seqs_of(subscriber.read()) == [1]
    assert "works again" in caplog.records[1].message
    assert subscriber._reader.retry_at == 0
    subscriber.start("e", 1, from_log=True)
    assert subscriber.read() is None
    assert len(caplog.records) == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [(BrokerClosed("closed"), CloseReason.SHUTDOWN), (BrokerDamaged("damaged"), CloseReason.ERROR)],
)
def test_a_log_that_is_no_more_ends_it(error: BrokerError, reason: CloseReason) -> None:
    subscriber = live(ScriptedLog(error))
    subscriber.start("e", 0, from_log=True)
    assert subscriber.read() == []
    assert subscriber.reason is reason
    assert subscriber.poll() is subscriber.reason


def test_a_log_that_fails_otherwise_ends_it_and_raises() -> None:
    subscriber = live(ScriptedLog(ZeroDivisionError()))
    subscriber.start("e", 0, from_log=True)
    with pytest.raises(ZeroDivisionError):
        subscriber.read()
    assert subscriber.poll() is CloseReason.ERROR


def test_as_many_pages_are_read_as_requested() -> None:
    log = ScriptedLog(page(1, complete=False), page(2, complete=False), page(3, complete=False), page(4))
    subscriber = live(log)
    subscriber.start("e", 0, from_log=True)
    assert seqs_of(subscriber.read(3 * len(message(1)))) == [1, 2, 3]
    assert seqs_of(subscriber.read(3 * len(message(1)))) == [4]
    assert subscriber.state is State.LIVE


def test_only_a_reader_that_neither_polls_nor_waits_is_too_slow() -> None:
    subscriber = live(max_pending_events=1, patience=60)
    offer(subscriber, 1, 2)
    subscriber._polled -= 61
    subscriber.progressed()
    assert offer(subscriber, 3)
    subscriber._polled -= 61
    subscriber.poll()
    subscriber.start("e", 3, from_log=False)
    assert subscriber.take(1, waits=True) is PENDING
    assert subscriber._polled == math.inf
    assert offer(subscriber, 4, 5)
    subscriber.poll()
    subscriber._polled -= 61
    assert offer(subscriber, 6)  # there is room, and was nothing to poll for
    subscriber._polled -= 61
    assert not offer(subscriber, 7)
    assert subscriber.reason is CloseReason.OVERFLOW


def closing(*seqs: int, final: int, complete: bool = True) -> Page:
    messages = [Message.make("e", seq, "a", b"data: x\n\n", final=seq == final) for seq in seqs]
    return Page(messages, complete, "", "e", max(seqs, default=final), {"a": final} if complete else {})


def by_name(log: ScriptedLog) -> Subscriber:
    return Subscriber(log, Policy(max_pending_events=2, patience=60), (("a",), ()))


def final(seq: int) -> Message:
    return Message.make("e", seq, "a", b"data: x\n\n", final=True)


def test_the_final_event_ends_it_when_all_before_it_was_given() -> None:
    subscriber = by_name(ScriptedLog())
    subscriber.offer([message(1)])
    subscriber.start("e", 0, from_log=False)
    assert subscriber.offer([final(2)]) is None
    assert subscriber.state is State.COMPLETING
    offer(subscriber, 3)
    subscriber.missed()
    subscriber.restarted("f", 9)
    assert seqs_of(subscriber.poll(1)) == [1]
    assert subscriber.reason is None
    assert seqs_of(subscriber.poll(1)) == [2]
    assert subscriber.poll() is CloseReason.DONE


def test_a_final_event_that_is_offered_before_the_start_ends_nothing_too_soon() -> None:
    from_log, live_at = by_name(ScriptedLog(closing(1, 2, final=2))), by_name(ScriptedLog())
    for subscriber in (from_log, live_at):
        subscriber.offer([final(2)])
        assert subscriber.state is State.STARTING
    from_log.start("e", 0, from_log=True)
    live_at.start("e", 1, from_log=False)
    assert seqs_of(from_log.read()) == [1, 2]
    assert seqs_of(live_at.poll()) == [2]
    for subscriber in (from_log, live_at):
        assert subscriber.poll() is CloseReason.DONE


def test_what_does_not_fit_before_the_start_is_read() -> None:
    subscriber = by_name(ScriptedLog(closing(1, 2, 3, final=3)))
    subscriber.offer([message(1), message(2), final(3)])
    subscriber.start("e", 0, from_log=False)
    assert subscriber.poll() == []
    assert seqs_of(subscriber.read()) == [1, 2, 3]
    assert subscriber.poll() is CloseReason.DONE


def test_a_log_that_begins_anew_before_the_start_is_found_by_a_read() -> None:
    subscriber = by_name(ScriptedLog(lost("unknown", "f", 3)))
    subscriber.restarted("f", 3)
    subscriber.start("e", 7, from_log=False)
    assert subscriber.poll() == []
    assert data_of(subscriber.read()) == ['{"reason":"unknown"}']


def test_after_a_log_has_begun_anew_a_read_shows_that_the_channel_is_closed_there() -> None:
    log = ScriptedLog(Page([], True, "", "f", 9, {"a": 9}))
    subscriber = by_name(log)
    subscriber.start("e", 0, from_log=False)
    subscriber.restarted("f", 9)
    assert data_of(subscriber.poll()) == ['{"reason":"restarted"}']
    assert subscriber.poll() == []
    assert subscriber.read() == []
    assert subscriber.poll() is CloseReason.DONE


@pytest.mark.parametrize("read", [(1,), (1, 2)])
def test_a_final_event_that_is_offered_during_a_read_is_given_once(read: tuple[int, ...]) -> None:
    pages = Page([message(1)], True, "", "e", 1) if read == (1,) else closing(1, 2, final=2)
    log = ScriptedLog(pages, during=lambda: subscriber.offer([final(2)]))
    subscriber = by_name(log)
    subscriber.start("e", 0, from_log=True)
    assert seqs_of(subscriber.read()) == [1, 2]
    assert subscriber.poll() is CloseReason.DONE


def test_a_slow_reader_gets_the_final_event_from_the_log() -> None:
    subscriber = by_name(ScriptedLog(closing(1, 2, complete=False, final=4), closing(3, 4, final=4)))
    subscriber.start("e", 0, from_log=False)
    subscriber.offer([message(1), message(2), message(3), final(4)])
    assert subscriber.state is State.LAGGING_OVERRUN
    assert subscriber.poll() == []
    assert seqs_of(subscriber.read()) == [1, 2]
    assert seqs_of(subscriber.read()) == [3, 4]
    assert subscriber.poll() is CloseReason.DONE


def test_a_right_that_is_revoked_after_the_last_event_was_read_counts() -> None:
    subscriber = by_name(ScriptedLog(closing(1, final=1)))
    subscriber.start("e", 0, from_log=True)
    subscriber.read()
    assert subscriber.reason is CloseReason.DONE
    subscriber.close(CloseReason.REVOKED)
    assert subscriber.poll() is CloseReason.REVOKED


def test_an_end_that_was_requested_counts_before_the_last_event_was_given() -> None:
    subscriber = by_name(ScriptedLog())
    subscriber.start("e", 0, from_log=False)
    subscriber.offer([final(1)])
    subscriber.close(CloseReason.SHUTDOWN, last=b"retry: 1\n")
    assert subscriber.poll() == [final(1), b"retry: 1\n"]
    assert subscriber.poll() is CloseReason.SHUTDOWN


def test_a_channel_that_was_dropped_and_begun_anew_is_open_again() -> None:
    subscriber = Subscriber(ScriptedLog(), Policy(), (("a", "b"), ()))
    subscriber.start("e", 0, from_log=False)
    subscriber.offer([final(1), message(2), Message.make("e", 3, "b", b"data: x\n\n", final=True)])
    assert seqs_of(subscriber.poll()) == [1, 2, 3]
    assert subscriber.reason is None
    assert subscriber.closed == {"b": 3}
