"""Following a run: from its start, from an event, after its end, and by way of a stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ssesync import Broker, CloseReason, Event, EventStream, RunUnknown, Writer
from ssesync.channels.runs.record import RunRecord
from ssesync.wire import Decoder

from ..conftest import Open

WAIT = 30


def numbers(count: int) -> Iterator[str]:
    yield from map(str, range(count))


def served(stream: EventStream, **headers: str) -> tuple[str, list[Event]]:
    """The status of a stream's answer, and its events to the end."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", **headers}
    statuses: list[str] = []
    answer = stream(environ, lambda status, headers, exc_info=None: statuses.append(status) or (lambda data: None))  # type: ignore[arg-type, func-returns-value]
    events = Decoder().feed(b"".join(answer))
    answer.close()  # type: ignore[attr-defined]
    return statuses[0], events


def data_of(events: list[Event]) -> list[str | None]:
    return [event.data for event in events if event.type == "message"]


def test_a_stream_of_a_run_has_it_from_its_start_to_its_end(openers: Open) -> None:
    go = threading.Event()

    def produce(writer: Writer) -> None:
        writer.write("first")
        go.wait(WAIT)
        writer.write("last")

    run = openers().start_run("a", produce, writer=True)
    followed = openers().get_run("a").follow()
    first = followed.get(WAIT)
    assert first is not None
    assert first.data == "first"
    go.set()
    stream = EventStream(run)
    for _ in range(2):  # each client gets a source of its own
        status, events = served(stream)
        assert (status, data_of(events), events[-1].type) == ("200 OK", ["first", "last"], "end")
    assert [event.type for event in followed] == ["message", "end"]
    assert followed.reason is CloseReason.DONE


def test_a_client_that_comes_back_gets_the_rest_and_after_the_end_204(broker: Broker) -> None:
    run = broker.start_run("a", numbers, 4)
    assert run.wait(WAIT)
    _, events = served(EventStream(run))
    status, rest = served(EventStream(run), HTTP_LAST_EVENT_ID=str(events[1].id))
    assert (status, data_of(rest), rest[-1].type) == ("200 OK", ["2", "3"], "end")
    status, rest = served(EventStream(run), HTTP_LAST_EVENT_ID=str(events[-1].id))
    assert (status, rest) == ("204 No Content", [])


def test_an_id_that_the_log_has_not_reached_begins_with_a_reset_and_the_runs_start(broker: Broker) -> None:
    run = broker.start_run("a", numbers, 2)
    assert run.wait(WAIT)
    epoch, number = broker.position().split("-")
    _, events = served(EventStream(run), HTTP_LAST_EVENT_ID=f"{epoch}-{int(number) + 10**9}")
    assert [event.type for event in events] == ["reset", "message", "message", "end"]


@pytest.mark.parametrize("event_id", ["no id", "abc-7"])
def test_an_unknown_id_begins_with_a_reset_and_the_runs_start(broker: Broker, event_id: str) -> None:
    run = broker.start_run("a", numbers, 2)
    for again in (False, True):
        assert run.wait(WAIT) or again
        _, events = served(EventStream(run), HTTP_LAST_EVENT_ID=event_id)
        assert [event.type for event in events] == ["reset", "message", "message", "end"]
        assert events[0].json() == {"reason": "unknown"}


def test_the_id_of_a_run_that_was_started_anew_begins_with_a_reset(broker: Broker) -> None:
    broker.start_run("a", numbers, 3).wait(WAIT)
    _, earlier = served(EventStream(broker.get_run("a")))
    run = broker.start_run("a", ["new"], restart=True)
    assert run.wait(WAIT)
    for event in earlier:  # the final one, too: its client shows the earlier run
        _, events = served(EventStream(run), HTTP_LAST_EVENT_ID=str(event.id))
        assert [event.type for event in events] == ["reset", "message", "end"]


def test_a_follower_that_reads_a_run_as_it_is_started_anew_gets_all_of_it(broker: Broker) -> None:
    broker.start_run("a", numbers, 2_000).wait(WAIT)
    subscription = broker.get_run("a").follow()
    assert len(subscription.take(WAIT) or ()) < 2_000
    with broker.open_run("a", restart=True) as run:
        run.write("new")
        assert broker.runs.own._appender.flush(WAIT)
        events = [subscription.get(WAIT), subscription.get(5)]
        assert [event.type for event in events if event] == ["reset", "message"]
    assert [event.type for event in subscription] == ["end"]


def test_a_run_that_has_expired_is_unknown(memory: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = memory.start_run("a", ["x"], retain=0.01)
    assert run.wait(WAIT)
    expired = threading.Event()
    while memory._find_run("a") is not None:
        expired.wait(0.01)
    with pytest.raises(RunUnknown):
        run.follow()
    with pytest.raises(RunUnknown):
        memory.get_run("a")
    with pytest.raises(RunUnknown):
        served(EventStream(run))
    assert memory.start_run("a", ["y"]).owned


def test_followers_of_a_queued_run_are_there_before_it_begins(openers: Open) -> None:
    web, worker = openers(), openers()
    subscription = web.queue_run("a").follow()
    assert subscription.get(0) is None
    with worker.open_run("a") as run:
        run.write("x")
    assert [event.type for event in subscription] == ["message", "end"]


def test_a_queued_run_that_no_process_begins_is_interrupted(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    subscription = broker.queue_run("a", wait=0.02).follow()
    event = subscription.get(WAIT)
    assert event is not None
    assert event.json() == {"state": "interrupted"}
    deadline = threading.Event()
    while "no process has begun it in time" not in caplog.text:
        deadline.wait(0.01)


def test_what_is_interrupted_can_be_started_again(broker: Broker) -> None:
    followed = threading.Event()

    @broker.on_interrupted
    def again(record: RunRecord) -> None:
        followed.wait(WAIT)
        broker.start_run(record.name, numbers, 2, subject=record.subject, restart=True)

    run = broker.queue_run("a", subject="u", wait=0.02)
    assert [event.type for event in run.follow()] == ["end"]
    followed.set()
    deadline = threading.Event()
    while broker.get_run("a", subject="u").state != "done":
        deadline.wait(0.01)
    assert broker.get_run("a", subject="u").began > run.began


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_of_a_broker_that_is_closed_another_process_starts_the_run_again(openers: Open) -> None:
    """The other one has no runs, and clients of another channel."""
    one, other = openers(), openers()
    called: queue.SimpleQueue[str] = queue.SimpleQueue()
    one.on_interrupted(lambda record: called.put("one"))
    other.on_interrupted(lambda record: called.put("other"))
    with other.subscribe("b"):
        one.open_run("a")
        one.close()
        assert called.get(timeout=WAIT) == "other"
