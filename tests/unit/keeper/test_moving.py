"""Which workers a worker that stops asks, and for how long. With real workers: ``tests/live/siblings``."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssesync import Broker, open_broker
from ssesync.keeper.folders import Sibling
from ssesync.keeper.listening import listen
from ssesync.keeper.moving import SiblingTransfer
from ssesync.keeper.peer import accept, make_hello
from ssesync.keeper.worker_table import WorkerTable
from ssesync.server.registry import streams
from tests.servers import eventually
from tests.unit.channels.clients import Client, turn

OWN = Sibling(3, 1003)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def join(tmp_path: Path, stack: contextlib.ExitStack) -> Callable[..., Client]:
    """Makes a client that this process counts."""

    def make(url: str = f"sqlite:///{tmp_path}/log.db", **options: object) -> Client:
        broker: Broker = stack.enter_context(open_broker(url))
        client = Client(broker, "a", **options)
        client.subscription = None  # type: ignore[assignment]
        turn()
        streams.receive(client.connection, "a key")
        stack.callback(streams.withdraw, client.connection, "a key")
        stack.callback(client.close)
        return client

    return make


def transfer(folder: Path, seconds: float = 30.0, table: WorkerTable | None = None) -> SiblingTransfer:
    return SiblingTransfer(folder, OWN, 2, seconds, table, lambda: False)


def begin(made: SiblingTransfer) -> threading.Event:
    """Begin it. The event: it is over."""
    over = threading.Event()
    made.begin(time.monotonic(), over.set)
    return over


def answers(folder: Path, sibling: Sibling, order: list[Sibling], *, stopping: bool = True) -> threading.Thread:
    """Be another worker, for one connection. ``order`` has those that were connected to."""
    listener = listen(folder / sibling.name)

    def run() -> None:
        with listener, accept(listener, make_hello("worker", [], stopping=stopping)):
            order.append(sibling)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_with_nobody_to_take_them_or_nothing_to_move_it_is_over_at_once(folder: Path, join: Callable[..., Client]):
    listen(folder / OWN.name).close()
    with listen(folder / "4-1004.sock"):
        made = transfer(folder)
        begin(made)
        assert not made.is_moving  # there is no client
    client = join()
    made = transfer(folder)
    assert made.may_move(client.connection)
    begin(made)
    assert not made.is_moving  # there is no worker
    assert not made.may_move(client.connection)
    assert made.seconds_to_move() is None


def test_workers_that_stop_as_well_refuse_and_it_is_over(
    folder: Path, join: Callable[..., Client], caplog: pytest.LogCaptureFixture
):
    client = join()
    order: list[Sibling] = []
    older, newer = Sibling(2, 1002), Sibling(5, 1005)
    threads = [answers(folder, sibling, order) for sibling in (older, newer)]
    made = transfer(folder)
    with caplog.at_level(logging.INFO, "ssesync"):
        assert begin(made).wait(90)
    for thread in threads:
        thread.join()
    assert sorted(order) == [older, newer]  # in which order the log line says
    assert not made.is_moving
    assert client.connection.reason is None  # the drain ends it
    [record] = [record for record in caplog.records if "could not move" in record.message]
    assert record.levelno == logging.INFO
    assert "1 event streams" in record.message
    assert "worker 1005: it stops as well; worker 1002: it stops as well" in record.message


def test_a_worker_without_the_log_takes_none_and_that_is_a_warning(
    folder: Path, join: Callable[..., Client], caplog: pytest.LogCaptureFixture
):
    join()
    thread = answers(folder, Sibling(4, 1004), [], stopping=False)
    (folder / "5-1005.sock").touch()
    assert begin(transfer(folder)).wait(90)
    [record] = [record for record in caplog.records if "could not move" in record.message]
    assert record.levelno == logging.WARNING
    assert "worker 1004: it has not opened the broker" in record.message
    assert "worker 1005: it has ended" in record.message
    thread.join()


def test_a_worker_that_does_not_answer_is_waited_for_until_the_time_is_over(folder: Path, join: Callable[..., Client]):
    client = join()
    with listen(folder / "4-1004.sock"):
        made = transfer(folder, seconds=0.6)
        began = time.monotonic()
        over = begin(made)
        assert made.is_moving
        assert made.may_move(client.connection)
        assert made.seconds_to_move() == 0.6
        assert over.wait(90)
        assert time.monotonic() - began >= 0.6


def test_a_quick_stop_ends_it(folder: Path, join: Callable[..., Client]):
    client = join()
    with listen(folder / "4-1004.sock"):
        made = transfer(folder)
        over = begin(made)
        made.abandon()
        assert not made.may_move(client.connection)
        assert over.wait(90)
        assert begin(made).is_set() is False
        assert not made.is_moving


def test_a_worker_does_not_exit_while_another_thread_begins(folder: Path, join: Callable[..., Client]):
    """The hook worker_exit runs at the same time as the reactor's drain."""
    join()
    counting, go_on = threading.Event(), threading.Event()

    class Slow(SiblingTransfer):
        def _count(self) -> int:
            counting.set()
            go_on.wait(90)
            return super()._count()

    made = Slow(folder, OWN, 2, 30.0, None, lambda: False)
    assert made.seconds_to_move() is None
    thread = threading.Thread(target=begin, args=(made,))
    thread.start()
    assert counting.wait(90)
    begin(made)
    assert made.seconds_to_move() == 30.0
    go_on.set()
    thread.join(90)
    assert not made.is_moving
    assert made.seconds_to_move() is None


def test_a_worker_that_was_just_forked_is_waited_for(folder: Path, join: Callable[..., Client]):
    join()
    table = WorkerTable()
    for age in (3, 4):
        table.forks(age)
    made = transfer(folder, table=table)
    over = begin(made)
    order: list[Sibling] = []
    assert made.is_moving
    thread = answers(folder, Sibling(4, 1004), order)
    table.is_ready(4)
    assert over.wait(90)
    thread.join()
    assert order == [Sibling(4, 1004)]


def test_each_of_many_workers_begins_with_another_of_the_newest(folder: Path):
    siblings = [Sibling(age, 1000 + age) for age in (6, 5, 4, 2, 1)]

    def chosen(age: int) -> list[int]:
        made = SiblingTransfer(folder, Sibling(age, age), 3, 1.0, None, lambda: False)
        return [each.age for each in made._choose(siblings)]

    assert [chosen(age) for age in (1, 2, 3)] == [[5, 4, 6], [4, 6, 5], [6, 5, 4]]
    assert chosen(7) == [4, 2, 1, 6, 5]


@pytest.mark.slow
def test_a_worker_that_stops_alone_waits_for_the_one_that_replaces_another(folder: Path, join: Callable[..., Client]):
    join()
    made = SiblingTransfer(folder, OWN, 2, 30.0, None, lambda: True)
    over = begin(made)
    assert made.is_moving
    order: list[Sibling] = []
    thread = answers(folder, Sibling(4, 1004), order)
    assert over.wait(90)
    thread.join()
    assert order == [Sibling(4, 1004)]
    made = SiblingTransfer(folder, OWN, 1, 30.0, None, lambda: True)
    begin(made)
    assert not made.is_moving  # the only worker


@pytest.mark.parametrize("url", ["memory://", ""])
def test_what_stays_is_ended_at_once(folder: Path, join: Callable[..., Client], url: str):
    client = join("memory://") if url else join(overflow="coalesce", coalesce=lambda event: None)
    with listen(folder / "4-1004.sock"):
        made = transfer(folder)
        assert not made.may_move(client.connection)
        begin(made)
        assert not made.is_moving
        assert eventually(lambda: not made.may_move(client.connection))
