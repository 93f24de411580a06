"""Runs in the log of every broker."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ssesync import Broker, ChannelClosed, ChannelError, StreamClosed
from ssesync.channels.entry import CLOSED, DUPLICATE, Entry, Outcome
from ssesync.channels.runs.record import RunRecord, RunState

from ..conftest import Open, published, texts
from ..test_closing import begin, data, page
from ..test_contract import eventually, place

#: Between processes: of memory://, an owner is gone together with the log.
shared = pytest.mark.parametrize("kind", ["sqlite", "redis"])

ROOT = Path(__file__).parents[4]


def record(name: str = "r", owner: str = "me", **fields: Any) -> RunRecord:
    state = RunState.RUNNING if owner else RunState.QUEUED
    rest = {"subject": "ada", "fingerprint": "f", "began": time.time(), "retain": 60.0, "deadline": 0.0}
    return RunRecord(name, owner, state, **{**rest, **fields})


def add(broker: Broker, name: str = "r", owner: str = "me", **fields: Any) -> RunRecord:
    """Add a run, whose owner is alive."""
    if owner:
        assert broker._renew_owner(owner, 60)
    added, found = broker._begin_run(record(name, owner, **fields), None, False)
    assert added
    assert found is not None
    return found


def body(text: object) -> bytes:
    return b"data: %s\n\n" % str(text).encode()


def event(number: int, name: str = "r", owner: str = "me") -> Entry:
    return Entry(name, body(number), number=number, owner=owner)


def final(state: str = "done", reason: str = "", name: str = "r", owner: str = "me") -> Entry:
    return Entry(name, body(state), final=True, outcome=Outcome(state, reason), owner=owner)


def append(broker: Broker, *entries: Entry) -> list[int]:
    return broker._append_many(entries, whole=False)[1]


def test_a_run_is_added_once_and_all_find_it(openers: Open) -> None:
    one, other = openers(), openers()
    assert one._find_run("r") is None
    added = add(one, fingerprint="ü", end_type="over", deadline=7.5)
    again = other._begin_run(record(subject="bob", owner="other"), None, False)
    assert again == (False, added)
    assert other._find_run("r") == one._find_run("r") == added == record(
        fingerprint="ü", end_type="over", deadline=7.5, began=added.began
    )  # fmt: skip
    assert other.has_channel("r")
    assert add(other, "r2") == record("r2", began=other._find_run("r2").began)  # type: ignore[union-attr]


def test_a_channel_is_no_run_and_a_run_no_channel_to_publish_to(broker: Broker) -> None:
    broker.publish("a", "x")
    with pytest.raises(ChannelError, match="'a' is a channel"):
        broker._begin_run(record("a"), None, False)
    assert broker._find_run("a") is None
    broker.publish("a", "y")
    add(broker)
    for action in (
        lambda: broker.publish("r", "x"),
        lambda: broker.publish("r", "x", final=True),
        lambda: broker.publish_many([("a", "x"), ("r", "x")]),
    ):
        with pytest.raises(ChannelClosed, match="'r' is closed"):
            action()
    assert begin(broker, "r") == []
    assert begin(broker, "a") == ["x", "y"]


def test_events_of_a_run_are_appended_in_their_order_and_once(openers: Open) -> None:
    broker = openers()
    start = broker.publish("a", "x")
    add(broker)
    with openers().subscribe("r") as subscription:
        numbers = append(broker, event(1), event(2), event(2), event(4))
        assert [number > 0 for number in numbers] == [True, True, False, False]
        assert numbers[2:] == [DUPLICATE, CLOSED]
        assert append(broker, event(1), event(2), event(3), Entry("a", body("y"))) > [DUPLICATE, DUPLICATE, 0, 0]
        assert append(broker, event(5), event(0), Entry("r", body("x")), Entry("r", body("x"), final=True)) == [0] * 4
        assert texts(subscription, 3) == ["1", "2", "3"]
    assert data(page(broker, start, "r", "a")) == ["1", "2", "3", "y"]


def test_an_event_of_another_owner_or_of_no_run_is_refused(broker: Broker) -> None:
    add(broker)
    assert (
        append(broker, event(1, owner="you"), final(owner="you"), event(1, "none"), final(name="none")) == [CLOSED] * 4
    )
    assert append(broker, event(1)) > [0]
    assert append(broker, final(owner="")) > [0]
    assert not broker.has_channel("none")


def test_the_final_event_ends_a_run_in_the_same_step(openers: Open) -> None:
    broker = openers()
    added = add(broker)
    before = time.time()
    with openers().subscribe("r") as subscription:
        numbers = append(broker, event(1), event(2), final("failed", "max_events"), event(3))
        seen: list[Any] = []
        while len(seen) < 3:
            seen += subscription.take(30) or ()
    assert [each > 0 for each in numbers] == [True, True, True, False]
    assert [message.final for message in seen] == [False, False, True]
    found = openers()._find_run("r")
    assert found is not None
    assert found == added._replace(state=RunState.FAILED, reason="max_events", ended=found.ended)
    assert before - 1 < found.ended < time.time() + 1
    assert broker.start_of(["r"], [], 0).closed == {"r": numbers[2]}
    # An append whose answer was lost.
    assert append(broker, event(1), event(2), event(3), final("failed", "max_events")) == [DUPLICATE] * 2 + [CLOSED] * 2
    assert begin(broker, "r") == ["1", "2", "failed"]


def test_of_the_final_events_of_a_run_one_is_appended(openers: Open) -> None:
    brokers = [openers(), openers()]
    add(brokers[0])
    states = ["done", "failed", "stopped", "interrupted"] * 2
    numbers: dict[int, int] = {}

    def end(index: int) -> None:
        (numbers[index],) = append(brokers[index % 2], final(states[index], str(index)))

    threads = [threading.Thread(target=end, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [index for index, number in numbers.items() if number > 0]
    found = brokers[1]._find_run("r")
    assert found is not None
    assert (found.state, found.reason) == (states[winner], str(winner))
    assert begin(brokers[0], "r") == [states[winner]]


def test_a_queued_run_is_begun_once(openers: Open) -> None:
    one, other = openers(), openers()
    add(one, owner="")
    assert append(one, event(1)) == [CLOSED]
    assert other._renew_owner("me", 60)
    assert [other._own_run("r", "me"), one._own_run("r", "you"), one._own_run("none", "you")] == [True, False, False]
    found = one._find_run("r")
    assert found is not None
    assert (found.owner, found.state) == ("me", RunState.RUNNING)
    assert append(one, event(1, owner="you"), event(1)) > [CLOSED, 0]
    append(one, final())
    assert not one._own_run("r", "me")


def test_a_queued_run_may_be_ended(broker: Broker) -> None:
    add(broker, owner="")
    assert append(broker, final("stopped", owner="")) > [0]
    found = broker._find_run("r")
    assert found is not None
    assert found.state is RunState.STOPPED
    assert not broker._own_run("r", "me")


def test_runs_are_exempt_from_the_limits_and_take_no_place_of_others(openers: Open) -> None:
    broker = openers(max_events=3, max_bytes=100, max_channels=2)
    for name in ("r", "r2", "r3"):
        add(broker, name)
    append(broker, *(event(number) for number in range(1, 31)))
    for channel in "ab" * 3:
        broker.publish(channel, channel)
    append(broker, *(event(number) for number in range(31, 51)))
    assert begin(broker, "r", last=100) == [str(number) for number in range(1, 51)]
    assert begin(broker, "a") == ["a"] * 3
    published(broker, "c", "c")
    assert not broker.has_channel("a")
    assert broker.has_channel("b")
    assert all(broker.has_channel(name) for name in ("r", "r2", "r3"))


def test_runs_do_not_age(openers: Open) -> None:
    broker = openers(max_age=0.05)
    add(broker)
    append(broker, event(1), event(2), final())
    published(broker, "a", "x")
    eventually(lambda: not broker.has_channel("a"))
    published(broker, "b", "x")
    assert begin(broker, "r") == ["1", "2", "done"]
    assert broker.has_channel("r")


def test_a_run_begins_where_it_was_added(broker: Broker) -> None:
    published(broker, "a", "before")
    position = broker.position()
    add(broker)
    assert broker.start_of(["r"], [], None)[:2] == place(position)
    published(broker, "a", "x")
    append(broker, event(1), event(2))
    assert begin(broker, "r") == ["1", "2"]
    assert begin(broker, "r", last=1) == ["2"]
    assert begin(broker, patterns=("*",), last=9) == ["x", "1", "2"]
    assert broker.start_of(["r"], [], None).closed == {}
    append(broker, final())
    assert begin(broker, "r", last=2) == ["2", "done"]


def test_a_run_whose_time_is_over_is_unknown_and_its_name_free(openers: Open) -> None:
    broker = openers()
    (start,) = published(broker, "a", "x")
    add(broker, retain=0.2)
    ids = [f"{place(start)[0]}-{number}" for number in append(broker, event(1), event(2), final())]
    assert broker.channel_of(ids[0]) == "r"
    time.sleep(0.21)
    assert broker._find_run("r") is None
    assert not openers().has_channel("r")
    add(broker, owner="you")
    assert append(broker, event(1), event(3)) == [CLOSED] * 2
    assert append(broker, event(1, owner="you")) > [0]
    assert broker.channel_of(ids[0]) is None
    assert begin(broker, "r") == ["1"]
    assert page(broker, ids[0], "r").lost == "trimmed"  # of the run that is not there any more
    assert page(broker, broker.position(), "r").lost == ""


def test_runs_that_expire_lose_nothing_for_other_channels(openers: Open) -> None:
    broker = openers()
    (start,) = published(broker, "a", "x")
    for number in range(5):
        add(broker, f"r{number}", retain=0.05)
        append(broker, event(1, f"r{number}"), final(name=f"r{number}"))
    time.sleep(0.06)
    add(broker)
    assert not broker.has_channel("r0")
    published(broker, "b", "y")
    append(broker, event(1))
    assert data(page(broker, start, "a", "b", "none")) == ["y"]
    with broker.subscribe("none", last_event_id=start) as subscription:
        assert subscription.get(0) is None


def test_a_run_that_has_ended_is_started_anew_by_its_subject_alone(openers: Open) -> None:
    broker = openers()
    first = add(broker)
    (seq,) = append(broker, event(1))
    assert broker._begin_run(record(), None, True) == (False, first)
    append(broker, final("interrupted"))
    ended = broker._find_run("r")
    assert broker._begin_run(record(), None, False) == (False, ended)
    assert broker._begin_run(record(subject="bob"), None, True) == (False, ended)
    position = broker.position()
    added, again = openers()._begin_run(record(owner="new", fingerprint="g"), 1, True)
    assert added
    assert again == broker._find_run("r")
    assert again is not None
    assert (again.owner, again.state, again.ended) == ("new", RunState.RUNNING, 0.0)
    assert append(broker, event(2), final()) == [CLOSED] * 2  # of the owner before
    assert append(broker, event(1, owner="new")) > [0]
    assert begin(broker, "r") == ["1"]
    assert page(broker, f"{place(position)[0]}-{seq}", "r").lost == "trimmed"
    assert broker.start_of(["r"], [], 0).closed == {}


def test_a_follower_elsewhere_never_takes_the_events_of_a_run_that_is_started_anew_for_those_of_the_one_before(
    openers: Open,
) -> None:
    one, other = openers(), openers()
    for number in range(10):
        name = f"r{number}"
        add(one, name)
        append(one, event(1, name))
        with other.subscribe(name) as subscription:
            append(one, event(2, name), final("interrupted", name=name))
            assert one._begin_run(record(name, "new"), None, True)[0]
            append(one, Entry(name, body("new"), number=1, owner="new"))
            seen: list[str | None] = []
            with contextlib.suppress(StreamClosed):
                while "reset" not in seen:
                    got = subscription.get(30)
                    assert got is not None
                    seen.append("reset" if got.type == "reset" else got.data)
        assert seen in (["reset"], ["2", "reset"], ["2", "interrupted"])


def test_a_subject_has_so_many_runs_at_most_that_have_not_ended(openers: Open) -> None:
    broker = openers()
    add(broker, "r0")
    add(broker, "r1", owner="")
    assert broker._begin_run(record("r2"), 2, False) == (False, None)
    assert broker._begin_run(record("r0"), 2, False)[1] is not None
    assert broker._begin_run(record("r2", subject="bob"), 2, False)[0]
    append(broker, final("stopped", name="r1", owner=""))
    assert openers()._begin_run(record("r3"), 2, False)[0]
    assert openers()._begin_run(record("r1"), 2, True) == (False, None)
    assert begin(broker, "r1") == ["stopped"]


@pytest.mark.slow
def test_of_many_that_begin_a_run_at_the_same_time_one_does(kind: str, url: str, openers: Open) -> None:
    """50 threads, of four processes where the broker reaches them."""
    here = 50 if kind == "memory" else 14
    broker = openers()
    others = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.channels.processes", "begin_runs", url, "12"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(0 if kind == "memory" else 3)
    ]
    outcomes: list[str] = []
    ready = threading.Barrier(here + 1)

    def start(number: int) -> None:
        ready.wait()
        added, found = broker._begin_run(record("r", f"here-{number}"), None, False)
        outcomes.append(f"{added} {found.owner if found else None}")

    threads = [threading.Thread(target=start, args=(number,)) for number in range(here)]
    for thread in threads:
        thread.start()
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    ready.wait()
    for other in others:
        outcomes += other.communicate("go\n", timeout=60)[0].splitlines()
    for thread in threads:
        thread.join()
    found = broker._find_run("r")
    assert found is not None
    assert Counter(outcomes) == {f"True {found.owner}": 1, f"False {found.owner}": 49}


def test_queued_runs_that_nobody_begins_are_found_until_they_are_ended(openers: Open) -> None:
    broker = openers()
    add(broker, "long", owner="", deadline=time.time() + 60)
    add(broker, "endless", owner="")
    assert broker._abandoned() == []
    assert broker._renew_owner("you", 60)
    for name in ("begun", "late"):
        add(broker, name, owner="", deadline=time.time() - 1)
    assert broker._own_run("begun", "you")
    for each in (broker, openers()):
        assert [found.name for found in each._abandoned()] == ["late"]
    append(broker, final("interrupted", name="late", owner=""))
    assert broker._abandoned() == []


@shared
def test_a_run_is_abandoned_when_the_lease_of_its_owner_is_over(openers: Open) -> None:
    one, other = openers(), openers()
    assert one._renew_owner("me", 60)
    assert other._renew_owner("you", 60)
    for name in ("r", "r2"):
        added = record(name, retain=60)
        assert one._begin_run(added, None, False) == (True, added)
    assert other._begin_run(record("r3", owner="you"), None, False)[0]
    append(one, final(name="r2"))
    assert other._abandoned() == []
    assert one._renew_owner("me", 0.05)
    eventually(lambda: [each.name for each in other._abandoned()] == ["r"])
    (found,) = other._abandoned()
    assert found == one._find_run("r")
    assert not one._renew_owner("me", 60)
    assert not one._renew_owner("me", 60)
    assert append(other, final("interrupted", owner="")) > [0]
    assert append(one, event(1)) == [CLOSED]
    assert other._abandoned() == []
    assert one._renew_owner("me again", 60)
    assert one._begin_run(record("r4", owner="me again"), None, False)[0]
    assert other._abandoned() == []


@shared
def test_an_owner_never_ends_its_own_runs(openers: Open) -> None:
    broker = openers()
    assert broker._renew_owner("me", 0.05)
    assert broker._begin_run(record(), None, False)[0]
    time.sleep(0.06)
    assert broker._abandoned() == []
    assert broker._renew_owner("me", 60)
