"""Publishing with ``linger``: what several threads publish goes into the log in one step."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssesync import BrokerUnavailable, ChannelClosed, SettingsError, open_broker
from ssesync.channels.entry import Entry
from ssesync.channels.group_commit import GroupCommit

from .conftest import Open


class Log:
    """What is appended, in its groups. The first append waits until so many threads publish."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.error: BaseException | None = None
        self.may_append = threading.Event()
        self.numbers = itertools.count(1)
        self.is_used_within: list[bool] = []
        self.commit = GroupCommit(self.append, 0.001, threading.Lock())

    def append(self, entries: Sequence[Entry]) -> tuple[str, list[int]]:
        self.groups.append([entry.body for entry in entries])
        self.is_used_within.append(self.commit.is_used_here())
        assert self.may_append.wait(90)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return "e", [next(self.numbers) for _ in entries]


def publish_together(log: Log, count: int) -> list[str | BaseException]:
    """Publish one event, and while it is appended the others."""

    def publish(number: int) -> str | BaseException:
        try:
            return log.commit.publish(Entry("a", b"%d" % number))[0]
        except BaseException as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        first = pool.submit(publish, 0)
        while not log.groups:
            pass
        others = [pool.submit(publish, number) for number in range(1, count)]
        while len(log.commit._queue) < count:
            pass
        log.may_append.set()
        return [each.result(20) for each in (first, *others)]


def test_what_is_published_while_a_group_is_appended_is_the_next_group() -> None:
    log = Log()
    ids = publish_together(log, 8)
    assert sorted(map(str, ids)) == [f"e-{number}" for number in range(1, 9)]
    assert [len(group) for group in log.groups] == [1, 7]
    assert not log.commit._queue
    assert not log.commit._threads


def test_an_error_is_that_of_each_thread_of_its_group() -> None:
    log = Log()
    log.error = BrokerUnavailable("full")
    results = publish_together(log, 3)
    assert isinstance(results[0], BrokerUnavailable)
    assert all(isinstance(each, str) for each in results[1:])


def test_an_exception_of_a_signal_handler_ends_the_thread_it_was_raised_in_and_no_other() -> None:
    log = Log()
    log.error = KeyboardInterrupt()
    results = publish_together(log, 3)
    assert isinstance(results[0], KeyboardInterrupt)
    assert all(isinstance(each, str) for each in results[1:])
    assert log.commit.publish(Entry("a", b"later"))[0].startswith("e-")


def test_a_signal_handler_learns_that_its_thread_publishes_already() -> None:
    log = Log()
    log.may_append.set()
    log.commit.publish(Entry("a", b"x"))
    assert log.is_used_within == [True]
    assert not log.commit.is_used_here()


def test_threads_that_publish_together_have_their_events_in_the_log(openers: Open) -> None:
    broker = openers(linger=0.002)
    with broker.subscribe("a", "b", since="start") as subscription, ThreadPoolExecutor(10) as pool:
        jobs = [pool.submit(broker.publish, "ab"[number % 2], str(number)) for number in range(100)]
        ids = {job.result(20): str(number) for number, job in enumerate(jobs)}
        events = [subscription.get(20) for _ in range(100)]
    assert {event.id: event.data for event in events if event is not None} == ids
    assert broker.snapshot()["published"] == 100
    broker.publish("a", "the end", final=True)
    with pytest.raises(ChannelClosed):
        broker.publish("a", "more")
    assert broker.publish("b", "more")


@pytest.mark.parametrize("linger", [0, -1, 2, "soon"])
def test_a_linger_that_can_not_work_is_refused(linger: object) -> None:
    with pytest.raises(SettingsError, match="linger"):
        open_broker("memory://", linger=linger)


def test_the_address_can_name_the_linger() -> None:
    assert open_broker("memory://?linger=0.01").linger == 0.01
    assert open_broker("memory://?linger=none").linger is None
