"""Two processes pass real TCP clients to each other while events are published."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssesync import Broker, open_broker

from .clients import Client, member, read_until, while_reading
from .processes import line

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    with open_broker(url) as broker:
        broker.position()
        yield broker


def publish(broker: Broker, first: int, count: int, text: str = "") -> None:
    for number in range(first, first + count):
        broker.publish("a", f"{number} {text}")


@contextlib.contextmanager
def publishing(broker: Broker, text: str = "") -> Iterator[list[int]]:
    """Publish numbers meanwhile, and texts of different sizes. Gives how many were published."""
    stop, published = threading.Event(), [0]

    def publish_on() -> None:
        while not stop.wait(0.02):
            broker.publish("a", f"{published[0]} {text[: published[0] * 37 % (len(text) + 1)]}")
            published[0] += 1

    publisher = threading.Thread(target=publish_on)
    publisher.start()
    try:
        yield published
    finally:
        stop.set()
        publisher.join()


def has(count: int) -> Callable[[Client], bool]:
    return lambda client: len(client.data) >= count


def check(clients: list[Client], count: int) -> None:
    """Every client has got every event once, and in order."""
    read_until(clients, has(count))
    for client in clients:
        assert client.data == list(range(count))


def close(clients: list[Client]) -> None:
    for client in clients:
        client.close()


def test_hundreds_of_clients_go_to_and_fro_and_get_each_event_once(broker: Broker, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with member(url, f"{folder}/a.sock") as a, member(url, f"{folder}/b.sock", role="worker") as b:
        staying = a.join(1, stays=True)
        clients = [*a.join(150), *a.join(50, chunked=True), *b.join(100)]
        with publishing(broker, "x" * 2000) as published:
            for source, target in [(a, b), (b, a)] * 2:
                source.begin_move(target)
                moved = while_reading(clients, source.result)
                assert "lost" not in moved
                assert moved["refused"] == moved["left"] == 0, moved
                assert moved["moved"] in (200, 300)
                read_until(clients, has(published[0]))
        check([*staying, *clients], published[0])
        # Byte for byte what a client gets that was never moved.
        [stayed] = staying
        assert {client.body for client in clients} == {stayed.body}
        b.await_counts(taken=200 + 300, refused=0)
        a.await_counts(transferred=300)  # the record of the first 200 does not count
        close([*staying, *clients])


def test_a_receiver_that_is_killed_before_the_acknowledgement_has_taken_no_client(
    broker: Broker, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    fault = "killed before the acknowledgement"
    with member(url, f"{folder}/a.sock") as a, member(url, f"{folder}/b.sock", fault) as b:
        clients = a.join(20)
        with publishing(broker) as published:
            assert "has closed the link" in a.move(b)["lost"]
        assert b.process.wait(90) == -signal.SIGKILL
        check(clients, published[0])
        assert all(not client.is_at_end for client in clients)
        assert "transferred" not in a.snapshot()
        close(clients)


def test_clients_of_a_receiver_that_is_killed_after_the_acknowledgement_come_back_and_miss_nothing(
    broker: Broker, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    fault = "killed after the acknowledgement"
    with member(url, f"{folder}/a.sock") as a, member(url, f"{folder}/b.sock", fault) as b:
        clients = a.join(20)
        publish(broker, 0, 3)
        check(clients, 3)
        moved = a.move(b)
        assert moved["moved"] == 20
        assert b.process.wait(90) == -signal.SIGKILL
        publish(broker, 3, 3)
        for client in clients:
            while not client.is_at_end:
                client.socket.setblocking(True)
                client.read()
            assert client.data == [0, 1, 2]
        back = [client for each in clients for client in a.join(1, last_event_id=each.last_event_id)]
        read_until(back, has(3))
        assert all(client.data == [3, 4, 5] for client in back)
        close(clients + back)


@pytest.mark.parametrize("the_sender", ["lives", "has ended"])
def test_a_receiver_that_is_stopped_beyond_the_timeout_serves_nobody_when_it_continues(
    broker: Broker, url: str, tmp_path: Path, the_sender: str
) -> None:
    folder = tmp_path / "run"
    fault = "stopped before the acknowledgement"
    with member(url, f"{folder}/a.sock", "timeout") as a, member(url, f"{folder}/b.sock", fault) as b:
        clients = a.join(20)
        publish(broker, 0, 3)
        a.begin_move(b)
        assert line(b.process) == "stops"
        publish(broker, 3, 3)
        assert "in time" in a.result()["lost"]
        publish(broker, 6, 3)
        check(clients, 9)
        if the_sender == "has ended":
            a.process.kill()
            a.process.wait()
        os.kill(b.process.pid, signal.SIGCONT)
        if the_sender == "has ended":
            # The receiver has their descriptors until it has forgotten them.
            read_until(clients, lambda client: client.is_at_end)
        found = b.snapshot()
        assert (found["taken"], found["recovered"]) == (0, 0)
        publish(broker, 9, 3)
        if the_sender == "lives":
            check(clients, 12)
        assert all(client.data == list(range(12 if the_sender == "lives" else 9)) for client in clients)
        close(clients)


def test_a_refused_client_stays_and_others_are_moved(broker: Broker, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fault = "refuses each third"
    with member(url, f"{folder}/a.sock") as a, member(url, f"{folder}/b.sock", fault) as b:
        clients = a.join(30)
        moved = a.move(b)
        assert moved["moved"] >= 20
        assert moved["left"] == 30 - moved["moved"]
        assert moved["why"] == "a test refuses it"
        publish(broker, 0, 3)
        check(clients, 3)
        close(clients)


def test_a_receiver_with_few_descriptors_takes_as_many_as_it_can(broker: Broker, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with member(url, f"{folder}/a.sock") as a, member(url, f"{folder}/b.sock", "few descriptors") as b:
        clients = a.join(150)
        moved = a.move(b)
        assert 30 <= moved["moved"] < 110
        assert moved["left"]
        assert "open files" in moved["why"]
        publish(broker, 0, 3)
        check(clients, 3)
        # It still accepts links, and gives its clients back.
        assert b.move(a)["moved"] == moved["moved"]
        publish(broker, 3, 3)
        check(clients, 6)
        close(clients)


def test_workers_of_gevent_pass_clients_to_each_other_and_to_threads(broker: Broker, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        member(url, f"{folder}/a.sock", "gevent", role="worker") as a,
        member(url, f"{folder}/b.sock", "gevent", role="worker") as b,
        member(url, f"{folder}/c.sock") as c,
    ):
        clients = [*a.join(60), *a.join(20, chunked=True)]
        with publishing(broker) as published:
            for source, target in [(a, b), (b, c), (c, a)]:
                assert while_reading(clients, functools.partial(source.move, target))["moved"] == 80
        check(clients, published[0])
        close(clients)
