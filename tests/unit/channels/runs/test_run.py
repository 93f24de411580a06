"""Runs: what every broker keeps to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync import (
    Broker,
    BrokerUnavailable,
    ChannelClosed,
    ChannelError,
    CloseReason,
    Event,
    EventError,
    RunConflict,
    RunRefused,
    RunState,
    RunUnknown,
    Settings,
    SettingsError,
    StreamClosed,
    Writer,
    open_broker,
)
from ssesync.channels.reentry import entered
from ssesync.channels.runs.ending import Ending, final_entry

from ..conftest import Open
from .conftest import final_of, texts_of, transcript

WAIT = 30


def numbers(count: int) -> Iterator[str]:
    yield from map(str, range(count))


class Held:
    """A producer that gives one event and waits until it is released, or its run ends."""

    def __init__(self) -> None:
        self.started, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.calls = 0
        self.error: BaseException | None = None

    def __call__(self, writer: Writer) -> None:
        self.calls += 1
        try:
            writer.write("first")
            self.started.set()
            while not self.go.wait(0.01) and not writer.cancelled.is_set():
                pass
            writer.write("last")
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.go.set()


def test_a_generator_is_produced_to_its_end(broker: Broker) -> None:
    run = broker.start_run("a", numbers, 3)
    assert run.wait(WAIT)
    assert (run.state, run.reason) == (RunState.DONE, "")
    assert run.ended >= run.began > 0
    assert texts_of(broker, "a") == ["0", "1", "2"]
    assert final_of(broker, "a") == {"state": "done", "events": 3}


@pytest.mark.parametrize(
    "producer",
    [lambda: ["a", Event("b", type="x")], ["a", Event("b", type="x")], iter(["a", Event("b", type="x")])],
    ids=["function", "list", "iterator"],
)
def test_what_gives_events_is_a_producer(memory: Broker, producer: Any) -> None:
    assert memory.start_run("a", producer).wait(WAIT)
    assert transcript(memory, "a")[:2] == [("message", "a"), ("x", "b")]


def test_a_function_with_a_writer_is_given_it_before_its_arguments(broker: Broker) -> None:
    def produce(writer: Writer, text: str, number: int) -> None:
        with writer.batch():
            writer.write(text)
            writer.write_event({"n": number}, type="json")
        writer.write_comment("not for the log")
        writer.write_raw(b"id: 7\nevent: raw\ndata: x\n\ndata: y\n\n", events=2)
        writer.finish("over")

    assert broker.start_run("a", produce, "text", 7, writer=True).wait(WAIT)
    assert transcript(broker, "a") == [
        ("message", "text"),
        ("json", '{"n":7}'),
        ("raw", "x"),
        ("message", "y"),
        ("done", "over"),
        ("end", {"state": "done", "events": 5}),
    ]


def test_a_start_joins_the_run_that_there_is_and_starts_no_producer(openers: Open, held: Held) -> None:
    one, other = openers(), openers()
    run = one.start_run("a", held, writer=True, subject="u", fingerprint="f")
    assert held.started.wait(WAIT)
    again = other.start_run("a", held, writer=True, subject="u", fingerprint="f")
    assert (run.owned, again.name, again.state, again.subject) == (True, "a", RunState.RUNNING, "u")
    held.go.set()
    assert run.wait(WAIT)
    assert again.wait(WAIT)
    assert again.state is RunState.DONE
    late = other.start_run("a", held, writer=True, subject="u", fingerprint="f")
    assert (late.state, late.owned, held.calls) == (RunState.DONE, False, 1)


def test_nobody_joins_follows_or_stops_another_subjects_run(broker: Broker, held: Held) -> None:
    run = broker.start_run("a", held, writer=True, subject="u")
    for action in (
        lambda: broker.start_run("a", held, writer=True, subject="v"),
        lambda: broker.start_run("a", held, writer=True),
        lambda: broker.queue_run("a", subject="v"),
        lambda: broker.open_run("a", subject="v"),
        lambda: broker.get_run("a", subject="v"),
        lambda: broker.stop_run("a", subject="v"),
        lambda: broker.get_run("b", subject="u"),
    ):
        with pytest.raises(RunUnknown):
            action()
    assert broker.get_run("a", subject="u").name == broker.get_run("a", subject=None).name == run.name


def test_another_fingerprint_is_a_conflict(broker: Broker, held: Held) -> None:
    broker.start_run("a", held, writer=True, fingerprint="1")
    with pytest.raises(RunConflict):
        broker.start_run("a", held, writer=True, fingerprint="2")


def test_a_channel_that_is_no_runs_can_not_become_one(broker: Broker) -> None:
    broker.publish("a", "x")
    with pytest.raises(ChannelError):
        broker.start_run("a", numbers, 1)
    broker.start_run("b", numbers, 1).wait(WAIT)
    with pytest.raises(ChannelClosed):
        broker.publish("b", "x")


def test_a_stop_ends_the_run_wherever_it_is_called_and_its_producer_learns_of_it(openers: Open, held: Held) -> None:
    one, other = openers(), openers()
    run = one.start_run("a", held, writer=True)
    assert held.started.wait(WAIT)
    assert other.stop_run("a") is True
    assert final_of(one, "a") == {"state": "stopped"}
    assert held.ended.wait(WAIT)
    assert isinstance(held.error, StreamClosed)
    assert held.error.reason is CloseReason.CANCELLED
    assert run.wait(WAIT)
    assert run.state is RunState.STOPPED
    assert other.stop_run("a") is False
    assert other.get_run("a").state is RunState.STOPPED
    assert texts_of(one, "a") == ["first"]


def test_a_run_that_was_started_anew_is_not_ended_by_what_is_left_of_the_one_before(openers: Open, held: Held) -> None:
    one, other = openers(), openers()
    earlier = one.start_run("a", held, writer=True)
    assert held.started.wait(WAIT)
    # Another process stops it, and its request to this one comes late.
    record = other._find_run("a")
    assert record is not None
    other._append_many([final_entry(record, Ending(RunState.STOPPED), owner="")], whole=False)
    with one.open_run("a", restart=True) as run:
        run.write("new")
        held.go.set()
        assert held.ended.wait(WAIT)
        assert isinstance(held.error, StreamClosed)
        assert earlier.wait(WAIT)
        assert earlier.state is RunState.STOPPED
        assert not earlier.stop()
        run.write("newer")
    assert texts_of(one, "a") == ["new", "newer"]
    assert final_of(one, "a") == {"state": "done", "events": 2}


def test_a_broker_that_is_closed_inside_itself_ends_the_waits_for_its_runs(held: Held) -> None:
    """As by a signal handler that has interrupted its thread there."""
    broker = open_broker("memory://")
    run = broker.start_run("a", held, writer=True)
    assert held.started.wait(WAIT)
    with entered():
        broker.close()
    assert run.wait(WAIT)
    assert (run.state, run.reason) == (RunState.INTERRUPTED, "shutdown")
    assert held.ended.wait(WAIT)


def test_a_run_that_is_being_started_does_not_count_as_one_that_the_log_has_lost(memory: Broker, held: Held) -> None:
    own = memory.runs.own
    begin = memory._begin_run

    def begin_later(*arguments: Any) -> Any:
        own._check_own()
        return begin(*arguments)

    memory._begin_run = begin_later  # type: ignore[method-assign]
    run = memory.start_run("a", held, writer=True)
    assert held.started.wait(WAIT)
    held.go.set()
    assert run.wait(WAIT)
    assert (run.state, texts_of(memory, "a")) == (RunState.DONE, ["first", "last"])


def test_the_time_of_a_run_ends_while_the_lease_can_not_be_renewed(memory: Broker, held: Held) -> None:
    def renew(owner: str, lease: float) -> bool:
        raise BrokerUnavailable("away")

    memory.start_run("a", held, writer=True, max_seconds=0.2)
    owner = memory.runs.own._owner
    owner._renew, owner._renewed = renew, -1e9
    assert held.ended.wait(WAIT)
    assert isinstance(held.error, StreamClosed)
    assert held.error.reason is CloseReason.LIFETIME


def test_a_generator_that_is_stopped_is_closed_where_it_yields(broker: Broker) -> None:
    closed, started = threading.Event(), threading.Event()

    def produce() -> Iterator[str]:
        try:
            while True:
                yield "x"
                started.set()
                time.sleep(0.001)  # without a pause it leaves no turn to the others under gevent: 26 s with Redis
        finally:
            closed.set()

    run = broker.start_run("a", produce)
    assert started.wait(WAIT)
    assert run.stop()
    assert closed.wait(WAIT)


def test_a_failure_is_described_in_the_final_event_without_its_text(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def produce() -> Iterator[str]:
        yield "x"
        raise ValueError("secret")

    run = broker.start_run("a", produce)
    assert run.wait(WAIT)
    assert (run.state, run.reason) == (RunState.FAILED, "error")
    final = final_of(broker, "a")
    assert (final["state"], final["events"], final["reason"]) == ("failed", 1, "error")
    assert final["error"]["type"] == "server_error"
    assert "secret" not in str(final)
    assert "the producer of the run a failed" in caplog.text


def test_error_event_makes_the_description_of_a_failure(memory: Broker) -> None:
    def describe(error: BaseException) -> Event:
        return Event.from_json({"code": 7, "kind": type(error).__name__}, type="error")

    def produce() -> Iterator[str]:
        raise KeyError("x")
        yield

    memory.start_run("a", produce, settings=Settings(error_event=describe), end_type="over").wait(WAIT)
    [(kind, data)] = transcript(memory, "a")
    assert kind == "over"
    assert Event(data).json()["error"] == {"code": 7, "kind": "KeyError"}


@pytest.mark.parametrize(
    ("bound", "value"), [("max_events", 5), ("max_bytes", 100), ("max_seconds", 0.05)], ids=lambda each: str(each)
)
def test_over_a_bound_the_run_fails_with_its_name(memory: Broker, bound: str, value: float) -> None:
    ended = threading.Event()

    def produce() -> Iterator[str]:
        try:
            for n in range(1_000_000):
                yield str(n)
                ended.wait(0.001)
        finally:
            ended.set()

    run = memory.start_run("a", produce, **{bound: value})
    assert run.wait(WAIT)
    assert (run.state, run.reason) == (RunState.FAILED, bound)
    final = final_of(memory, "a")
    assert final["error"]["code"] == bound
    assert final["events"] == len(texts_of(memory, "a"))
    assert ended.wait(WAIT)
    if bound == "max_events":
        assert final["events"] == 5


def test_a_subject_has_so_many_runs_at_a_time(broker: Broker, held: Held) -> None:
    for name in "ab":
        broker.start_run(name, held, writer=True, subject="u", max_per_subject=2)
    with pytest.raises(RunRefused):
        broker.start_run("c", held, writer=True, subject="u", max_per_subject=2)
    broker.start_run("c", held, writer=True, subject="v", max_per_subject=2)
    assert broker.stop_run("a", subject="u")
    broker.start_run("d", held, writer=True, subject="u", max_per_subject=2)


def test_runs_count_against_the_producers_of_the_process(memory: Broker, held: Held) -> None:
    settings = Settings(max_producers=1)
    memory.start_run("a", held, writer=True, settings=settings)
    with pytest.raises(RunRefused):
        memory.start_run("b", held, writer=True, settings=settings)
    assert memory.start_run("a", held, writer=True, settings=settings).owned  # it is joined
    with pytest.raises(RunUnknown):
        memory.get_run("b")


def test_a_run_is_queued_and_begun_elsewhere(openers: Open) -> None:
    web, worker = openers(), openers()
    run = web.queue_run("a", subject="u", end_type="over")
    assert (run.state, run.owned) == (RunState.QUEUED, False)
    assert web.queue_run("a", subject="u").state is RunState.QUEUED
    with pytest.raises(RuntimeError, match="not produced here"):
        run.write("x")
    with worker.open_run("a") as own:
        assert (own.owned, own.subject) == (True, "u")
        assert web.get_run("a", subject="u").state is RunState.RUNNING
        own.write({"percent": 50}, type="progress")
    assert run.wait(WAIT)
    assert run.state is RunState.DONE
    assert transcript(web, "a") == [("progress", '{"percent":50}'), ("over", '{"state":"done","events":1}')]


def test_a_run_that_is_open_is_not_opened_again_unless_it_has_ended(broker: Broker) -> None:
    with broker.open_run("a", subject="u") as run:
        run.write("x")
        with pytest.raises(RunConflict):
            broker.open_run("a")
    with pytest.raises(RunConflict):
        broker.open_run("a")
    with broker.open_run("a", restart=True) as run:
        run.write("y")
    assert run.subject == "u"
    assert texts_of(broker, "a") == ["y"]


def test_an_exception_in_the_block_fails_the_run_and_a_stop_ends_the_block(openers: Open) -> None:
    broker, other = openers(), openers()
    with pytest.raises(KeyError), broker.open_run("a"):
        raise KeyError("x")
    assert final_of(broker, "a")["state"] == "failed"
    passed = False
    with broker.open_run("b") as run:
        other.stop_run("b")
        assert run.cancelled.wait(WAIT)
        run.write("x")
        passed = True
    assert not passed
    assert run.state is RunState.STOPPED
    assert final_of(broker, "b") == {"state": "stopped"}


def test_a_queued_run_can_be_stopped_before_it_is_begun(openers: Open) -> None:
    web, worker = openers(), openers()
    web.queue_run("a")
    assert web.stop_run("a")
    with pytest.raises(RunConflict):
        worker.open_run("a")


def test_a_run_that_has_ended_is_started_anew_if_that_is_asked_for(broker: Broker) -> None:
    broker.start_run("a", numbers, 2, fingerprint="1").wait(WAIT)
    run = broker.start_run("a", numbers, 3, fingerprint="2", restart=True)
    assert run.wait(WAIT)
    assert texts_of(broker, "a") == ["0", "1", "2"]


def test_text_is_joined_where_the_run_merges(broker: Broker) -> None:
    def produce() -> Iterator[Any]:
        yield from "Hello"
        yield {"a": 1}
        yield from (Event("x"), Event("y"))
        yield from "ab"

    assert broker.start_run("a", produce, merge=10).wait(WAIT)
    assert texts_of(broker, "a") == ["Hello", '{"a":1}', "x", "y", "ab"]
    assert final_of(broker, "a")["events"] == 5


def test_joined_text_does_not_wait_longer_than_merge(broker: Broker) -> None:
    with broker.open_run("a", merge=0.02) as run:
        for text in ("a", "b"):
            run.write(text)
            run.write(text, type="other")
        run.write_text("c", type="other")
        deadline = threading.Event()
        while len(transcript(broker, "a")) < 4:
            deadline.wait(0.01)
        run.write("d")
    assert transcript(broker, "a")[:-1] == [
        ("message", "a"), ("other", "a"), ("message", "b"), ("other", "bc"), ("message", "d"),
    ]  # fmt: skip


def test_objects_are_numbered_where_that_is_asked_for(broker: Broker) -> None:
    items = [{"a": 1}, "text", {}, Event('{"b":2}', type="x"), "{", "{}}", "{ }", '{\n"c":\n3}']
    assert broker.start_run("a", items, numbered=True).wait(WAIT)
    assert texts_of(broker, "a") == [
        '{"sequence_number":1,"a":1}',
        "text",
        '{"sequence_number":3}',
        '{"sequence_number":4,"b":2}',
        "{",
        "{}}",
        '{"sequence_number":7 }',
        '{"sequence_number":8,\n"c":\n3}',
    ]


def test_an_event_of_a_run_has_no_id_of_its_own(broker: Broker) -> None:
    with broker.open_run("a") as run, pytest.raises(EventError, match="given by the broker"):
        run.write(Event("x", id="7"))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_event": 1}, "did you mean 'max_events'"),
        ({"max_events": 0}, "max_events takes"),
        ({"merge": -1}, "merge takes"),
        ({"end_type": "error"}, "end_type takes"),
        ({"retain": 0}, "retain takes"),
    ],
)
def test_options_are_checked(memory: Broker, options: dict[str, Any], error: str) -> None:
    with pytest.raises(SettingsError, match=error):
        memory.start_run("a", numbers, 1, **options)


def test_what_is_no_producer_is_refused(memory: Broker) -> None:
    async def asynchronous() -> None: ...

    def yields(writer: Writer) -> Iterator[str]:
        yield "x"

    for producer, options in ((asynchronous, {}), ("text", {}), (yields, {"writer": True}), ([], {"writer": True})):
        with pytest.raises(TypeError):
            memory.start_run("a", producer, **options)
    with pytest.raises(TypeError, match="subject"):
        memory.start_run("a", numbers, 1, subject=7)  # type: ignore[arg-type]
    run = memory.start_run("a", lambda: None)
    assert run.wait(WAIT)
    assert run.state is RunState.FAILED


def test_runs_are_counted(memory: Broker, held: Held) -> None:
    assert "runs" not in memory.snapshot()
    memory.start_run("a", held, writer=True)
    memory.start_run("b", numbers, 1).wait(WAIT)
    assert memory.snapshot()["runs"] == {"running": 1, "done": 1, "failed": 0, "stopped": 0, "interrupted": 0}


def test_closing_the_broker_interrupts_its_runs(memory: Broker, held: Held) -> None:
    run = memory.start_run("a", held, writer=True)
    assert held.started.wait(WAIT)
    memory.close()
    assert (run.state, run.reason) == (RunState.INTERRUPTED, "shutdown")
    assert held.ended.wait(WAIT)
    assert isinstance(held.error, StreamClosed)
    assert held.error.reason is CloseReason.SHUTDOWN


def test_the_error_for_a_run_that_can_not_be_opened_says_what_to_do(broker: Broker) -> None:
    with broker.open_run("a"), pytest.raises(RunConflict, match=r"is running already: stop\(\) ends it"):
        broker.open_run("a", restart=True)
    with pytest.raises(RunConflict, match="has ended: restart=True begins it anew"):
        broker.open_run("a")
