"""The links of a process, and what it refuses."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ssesync import Broker

from .clients import member, read_until
from .test_exporting import broker, check, close, publish, url

__all__ = ["broker", "url"]


@pytest.mark.slow
def test_clients_of_a_sender_that_was_killed_before_it_could_get_the_acknowledgement_are_served(
    broker: Broker, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with (
        member(url, f"{folder}/a.sock", "killed after it has sent") as a,
        member(url, f"{folder}/b.sock", "waits for the sender's end") as b,
    ):
        clients = a.join(20)
        publish(broker, 0, 3)
        check(clients, 3)
        a.begin_move(b)
        publish(broker, 3, 3)
        check(clients, 6)
        assert a.process.wait(10) == -signal.SIGKILL
        b.await_counts(taken=20, recovered=20)
        publish(broker, 6, 3)
        check(clients, 9)
        close(clients)


@pytest.mark.slow
def test_clients_of_a_sender_that_is_killed_at_any_moment_are_served_by_one_process_or_end(
    broker: Broker, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for number in range(5):
        path = f"{folder}/{number}"
        with member(url, f"{path}a.sock") as a, member(url, f"{path}b.sock") as b:
            clients = a.join(100)
            a.begin_move(b)
            time.sleep(0.01 * number)
            a.process.kill()
            a.process.wait()
            publish(broker, 0, 3)
            read_until(clients, lambda client: len(client.data) == 3 or client.is_at_end)
            served = [client for client in clients if client.data]
            assert all(client.data == [0, 1, 2] for client in served)
            b.await_counts(taken=len(served))
            close(clients)
