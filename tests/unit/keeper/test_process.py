"""A keeper and the workers' side of it, in one process with two brokers on one log. Processes: tests/live/keeper."""

from __future__ import annotations

import contextlib
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssesync import Broker, CloseReason, Settings, open_broker
from ssesync.channels.subscription import Subscription
from ssesync.keeper import mover, reserving
from ssesync.keeper.client import KeeperClient
from ssesync.keeper.draining import KeeperTransfer
from ssesync.keeper.process import Keeper
from ssesync.keeper.status import ask_status
from ssesync.server.registry import streams

from ..channels.clients import TIMEOUT, Client, await_events, await_that

Join = Callable[..., Client]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "_PAUSE", 0.02)
    monkeypatch.setattr(mover, "_CHECK", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "k")


@pytest.fixture
def worker(tmp_path: Path, path: str) -> Iterator[Broker]:
    """The broker of a worker."""
    with open_broker(f"sqlite:///{tmp_path}/log.db") as broker:
        broker.keeper = path
        yield broker


class Running:
    """A keeper whose process is this one."""

    def __init__(self, path: str, url: str) -> None:
        self.keeper = Keeper(path, open_broker(url), spread=0.05)
        self.keeper.open()
        self.keeper.listen()
        self.code: list[int] = []
        self._thread = threading.Thread(target=lambda: self.code.append(self.keeper.run()), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.keeper.finish(spread=True)
        self._thread.join(TIMEOUT)
        streams.stopping = False


@pytest.fixture
def start(tmp_path: Path, path: str) -> Iterator[Callable[[], Running]]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)

        def begin() -> Running:
            running = Running(path, f"sqlite:///{tmp_path}/log.db")
            stack.callback(running.end)
            return running

        yield begin


@pytest.fixture
def join(worker: Broker) -> Iterator[Join]:
    """Connects a client of the worker's, to which the application has no reference unless it ``stays``."""
    with contextlib.ExitStack() as stack:

        def connect(*channels: str, stays: bool = False, **options: Any) -> Client:
            client = Client(worker, *(channels or ("a",)), **options)
            stack.callback(client.close)
            if not stays:
                del client.subscription
            return client

        yield connect


def held(broker: Broker) -> int:
    return len(broker.dispatcher)


def test_a_client_is_moved_and_gets_each_event_once(worker: Broker, start: Any, join: Join) -> None:
    keeper = start().keeper
    clients = [join() for _ in range(3)]
    worker.publish("a", "1")
    await_that(lambda: (held(worker), held(keeper.broker)) == (0, 3), "they are moved", *clients)
    worker.publish("a", "2")
    await_events(2, *clients)
    assert [each.data for each in clients] == [["1", "2"]] * 3
    assert {each.reason for each in clients} == {CloseReason.TRANSFERRED}
    assert ask_status(keeper.path)["keeper"]["taken"] == 3


def test_without_a_keeper_clients_are_served_and_moved_when_it_comes(
    worker: Broker, start: Any, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    client = join()
    await_that(lambda: "can't be used" in caplog.text, "the absent keeper is logged")
    worker.publish("a", "1")
    await_events(1, client)
    keeper = start().keeper
    await_that(lambda: held(keeper.broker) == 1, "it is moved")
    worker.publish("a", "2")
    await_events(2, client)
    await_that(lambda: "takes clients again" in caplog.text, "its return is logged")
    assert caplog.text.count("can't be used") == 1


def test_the_thread_ends_with_the_broker_also_if_a_client_was_added_last(worker: Broker, join: Join) -> None:
    join()
    holder: Any = worker.broadcast_groups.holder
    await_that(lambda: holder._movers[0].is_away, "the keeper is away")
    worker.close()
    holder.added()
    await_that(lambda: holder._movers[0]._idle, "the thread has ended")
    assert holder._movers[0]._idle == [None]


def test_clients_that_stay_are_logged_once_and_those_of_the_application_are_moved_when_it_releases_them(
    worker: Broker, start: Any, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = start().keeper
    kept = join(stays=True)
    for _ in range(2):
        join(overflow="coalesce", coalesce=str)
    await_that(lambda: "coalesce= is a function" in caplog.text, "the reason is logged")
    assert held(worker) == 3
    subscription: Subscription | None = kept.__dict__.pop("subscription")
    assert subscription is not None
    subscription = None
    join()  # the thread tries again for each client, and rarely otherwise
    await_that(lambda: (held(worker), held(keeper.broker)) == (2, 2), "the others are moved")
    assert caplog.text.count("stays in this process") == 1


def test_a_keeper_on_another_log_is_not_used(
    worker: Broker, path: str, tmp_path: Path, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(path, f"sqlite:///{tmp_path}/other.db")
    try:
        client = join()
        await_that(lambda: "it is on another log" in caplog.text, "the other log is logged")
        worker.publish("a", "1")
        await_events(1, client)
    finally:
        running.end()


def test_a_keeper_that_stops_ends_its_clients_and_the_worker_keeps_the_next_ones(
    worker: Broker, start: Any, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    running = start()
    clients = [join() for _ in range(3)]
    await_that(lambda: held(running.keeper.broker) == 3, "they are moved")
    with caplog.at_level(logging.INFO, "ssesync.keeper"):
        running.end()
    await_that(lambda: all(each.is_at_end for each in clients), "they are ended", *clients)
    assert all(b"retry: " in each.bytes for each in clients)
    assert running.code == [0]
    assert not Path(running.keeper.path).exists()
    assert "the keeper stops: 3 clients are ended" in caplog.text
    after = join()
    worker.publish("a", "1")
    await_events(1, after)
    assert held(worker) == 1


def test_a_place_for_a_key_is_reserved_and_its_stream_takes_it(
    worker: Broker, start: Any, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "_ANSWER", 5.0)
    keeper = start().keeper
    worker.listen()
    holder = worker.broadcast_groups.holder
    assert isinstance(holder, KeeperClient)
    assert [holder.reserve("a key", 2) for _ in range(3)] == [True, True, False]
    client = join(max_streams_per_key=2)
    await_that(lambda: held(keeper.broker) == 1, "it is moved")
    assert [holder.reserve("a key", 3), holder.reserve("a key", 3)] == [True, False]
    client.close()
    await_that(lambda: held(keeper.broker) == 0, "it has left")
    assert holder.reserve("a key", 3)


def test_a_keeper_that_does_not_answer_forbids_nothing_and_is_not_asked_for_a_while(
    worker: Broker, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.listen()
    holder: Any = worker.broadcast_groups.holder
    assert holder.reserve("a key", 1)
    assert holder._reserving[0]._paused_until > 0
    start()
    asked: list[object] = []
    monkeypatch.setattr(reserving, "connect_to", lambda *arguments: asked.append(arguments))
    assert [holder.reserve("a key", 1) for _ in range(3)] == [True] * 3
    assert asked == []


def test_several_keepers_have_a_part_each_and_a_keys_streams_together(worker: Broker) -> None:
    client = KeeperClient(worker, ("/run/a", "/run/b", "/run/c"))

    def keeper_of(key: str, fd: int, limit: int | None) -> list[int]:
        settings, record = Settings(max_streams_per_key=limit), SimpleNamespace(key=key)
        connection: Any = SimpleNamespace(settings=settings, fd=fd, record=record)
        return [index for index in range(3) if client._is_at(index, connection)]

    assert {tuple(keeper_of("ann", fd, 5)) for fd in range(9)} == {(client._index_of_key("ann"),)}
    assert [keeper_of("", fd, None) for fd in range(3)] == [[0], [1], [2]]
    assert {client._index_of_key(f"user {number}") for number in range(50)} == {0, 1, 2}


def test_a_process_that_stops_moves_its_clients_first(
    worker: Broker, start: Any, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "_PAUSE", 60.0)
    client = join()
    holder: Any = worker.broadcast_groups.holder
    transfer, over = KeeperTransfer(holder._movers), threading.Event()
    connection = client.connection
    # The registry has no streams that no server has served.
    monkeypatch.setattr("ssesync.keeper.draining.streams", SimpleNamespace(all=lambda: [connection]))
    await_that(lambda: holder._movers[0].is_away, "the keeper is away")
    assert not transfer.may_move(connection)  # it has not begun
    keeper = start().keeper
    transfer.begin(0.0, lambda: None)  # its time was over long ago
    assert transfer.seconds_to_move() is None
    transfer = KeeperTransfer(holder._movers)
    transfer.begin(time.monotonic(), over.set)
    assert over.wait(TIMEOUT)
    assert held(keeper.broker) == 1
    assert (transfer.seconds_to_move(), transfer.may_move(connection)) == (None, False)
    abandoned = KeeperTransfer(holder._movers)
    abandoned.abandon()
    abandoned.begin(time.monotonic(), over.set)
    assert abandoned.seconds_to_move() is None


def test_a_worker_does_not_exit_while_another_thread_begins(
    worker: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook worker_exit runs at the same time as the reactor's drain."""
    beginning, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        beginning.set()
        go_on.wait(TIMEOUT)

    monkeypatch.setattr("ssesync.keeper.draining.gunicorn_worker", slow)
    transfer = KeeperTransfer([])
    thread = threading.Thread(target=transfer.begin, args=(time.monotonic(), lambda: None))
    thread.start()
    assert beginning.wait(TIMEOUT)
    transfer.begin(time.monotonic(), lambda: None)
    assert transfer.seconds_to_move() is not None
    go_on.set()
    thread.join()
    assert transfer.seconds_to_move() is None


def test_an_error_while_streams_move_ends_the_transfer_and_nothing_waits_for_it(
    worker: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, checks, over = join().connection, iter([True]), threading.Event()
    monkeypatch.setattr("ssesync.keeper.draining.streams", SimpleNamespace(all=lambda: [connection]))
    # The second check fails: that is on the transfer's own thread.
    failing: Any = SimpleNamespace(hurry=lambda: None, is_away=False, takes=lambda stream: next(checks))
    transfer = KeeperTransfer([failing])
    transfer.begin(time.monotonic(), over.set)
    assert over.wait(TIMEOUT)
    assert transfer.seconds_to_move() is None


def test_a_status_that_is_too_large_leaves_streams_out(start: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = start().keeper
    described = keeper.describe() | {"streams": [{"name": "x" * 5000}] * 4000}
    monkeypatch.setattr(keeper, "describe", lambda: described)
    status = ask_status(path)
    assert (len(status["streams"]), status["keeper"]["streams_left_out"]) == (1000, 3000)
