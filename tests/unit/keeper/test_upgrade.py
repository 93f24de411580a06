"""The steps of an upgrade, over socket pairs: the keeper records what is requested of it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync.keeper import upgrade
from ssesync.keeper.exporting import Moved
from ssesync.keeper.framing import Link, LinkLost
from ssesync.keeper.lifeline import Lifeline
from ssesync.keeper.listening import Listener, listen
from ssesync.keeper.upgrade import TRANSITIONS, HandOver, Step, UpgradeError, next_size, take_over

LOGS = ["a log"]
MOVED, LAST = Moved(moved=2, refused=0, left=1), Moved(moved=1, refused=0, left=0)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_AGAIN", 0.02)


class Running:
    """A keeper. Its clients are the results of its exporters, which may be errors."""

    def __init__(self, path: str) -> None:
        self.listener = listen(path)
        self.kept: tuple[int, int] | None = None
        self.calls: list[str] = []
        self.results: list[Moved | Exception] = [MOVED, LAST]
        self.links = 0
        self.worst = 0.05

    def handles(self) -> tuple[int, int]:
        return self.listener.socket.fileno(), self.listener.lock

    def stop_accepting(self) -> None:
        self.calls.append("stop accepting")
        self.kept = os.dup(self.listener.socket.fileno()), os.dup(self.listener.lock)
        self.listener.close(remove=False)

    def accept(self) -> None:
        self.calls.append("accept")
        if self.kept is not None:
            self.listener, self.kept = Listener.adopt(self.listener.path, *self.kept), None

    def open_links(self) -> int:
        return self.links

    def connect(self) -> Link:
        self.calls.append("connect")
        own, other = socket.socketpair()
        other.close()
        return link_of(own)

    def exporter(self, link: Link) -> Any:
        return self

    def move(self, most: int) -> Moved:
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        pass

    def finish(self, *, spread: bool) -> None:
        self.calls.append("finish, spread" if spread else "finish")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "folder" / "keeper.sock")


@pytest.fixture
def running(path: str) -> Iterator[Running]:
    made = Running(path)
    yield made
    made.listener.close()
    for fd in made.kept or ():
        os.close(fd)


def link_of(handle: socket.socket, role: str = "keeper") -> Link:
    link = Link(handle)
    link.pid = 4711
    link.peer = {"role": role, "logs": LOGS}
    return link


@contextlib.contextmanager
def requesting(hand_over: HandOver, role: str = "keeper") -> Iterator[Link]:
    """The next process's link to a keeper, which handles its request on a thread. At the end the upgrade is over."""
    ours, theirs = socket.socketpair()
    link, other = link_of(ours), link_of(theirs, role)

    def handle() -> None:
        with contextlib.suppress(LinkLost):
            if (answer := hand_over.replace(other, other.receive(10))) is not None:
                other.send(answer)

    thread = threading.Thread(target=handle)
    thread.start()
    try:
        yield link
    finally:
        link.close()
        thread.join(90)
        other.close()
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_reached(listener: Listener) -> bool:
    """Whether a process that connects to the path is accepted here."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.path)
        listener.accept().close()
    return True


def test_each_step_has_its_followers() -> None:
    assert set(TRANSITIONS) == set(Step)
    assert not TRANSITIONS[Step.REPLACED]
    assert Step.REPLACED not in TRANSITIONS[Step.KEEPER] | TRANSITIONS[Step.OFFERED]


def test_the_next_process_gets_the_listener_the_lock_and_the_clients(running: Running, path: str) -> None:
    hand_over = HandOver(running)
    with requesting(hand_over) as link, contextlib.closing(take_over(path, link, LOGS)) as got:
        assert hand_over.step is Step.OFFERED
        assert not running.calls  # it still accepts
        got.enter()
        report = got.wait()
        assert (report["result"], report["moved"], report["worst"]) == ("done", 3, 0.05)
        wait_until(lambda: running.calls == ["stop accepting", "finish"])
        assert is_reached(got.listener)
        with pytest.raises(BlockingIOError):  # the lock was never free
            listen(path)
    assert hand_over.step.name == "REPLACED"


def after_the_request(path: str, link: Link) -> None:
    link.send({"op": "replace"})


def after_the_offer(path: str, link: Link) -> None:
    take_over(path, link, LOGS).close()


def with_nonsense(path: str, link: Link) -> None:
    got = take_over(path, link, LOGS)
    link.send({"op": "status"})
    with pytest.raises(UpgradeError):
        got.enter()


@pytest.mark.parametrize("fail", [after_the_request, after_the_offer, with_nonsense])
def test_a_next_process_that_fails_early_changes_nothing(
    running: Running, path: str, fail: Callable[[str, Link], None]
) -> None:
    hand_over = HandOver(running)
    with requesting(hand_over) as link:
        fail(path, link)
    assert hand_over.step is Step.KEEPER
    assert running.calls == ["accept"]
    assert is_reached(running.listener)
    with requesting(hand_over) as link, contextlib.closing(take_over(path, link, LOGS)) as got:  # the one after that
        got.enter()
        assert got.wait()["moved"] == 3


def test_a_next_process_that_does_not_answer_changes_nothing(
    running: Running, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over = HandOver(running)
    with requesting(hand_over) as link:
        monkeypatch.setattr(upgrade, "_ANSWER", 0.05)
        got = take_over(path, link, LOGS)
        wait_until(lambda: running.calls == ["accept"])
        # It goes on later, as after SIGSTOP: it must not accept.
        with pytest.raises(UpgradeError, match="was not replaced"):
            got.enter()
    assert hand_over.step is Step.KEEPER
    assert is_reached(running.listener)


def test_the_keeper_takes_back_if_the_next_one_has_ended(running: Running, path: str) -> None:
    running.results = [MOVED, LinkLost("its end")]
    hand_over = HandOver(running)
    with requesting(hand_over) as link:
        got = take_over(path, link, LOGS)
        got.enter()
        wait_until(lambda: hand_over.step is Step.MOVING)
        got.close()
    assert hand_over.step is Step.KEEPER
    assert (running.calls[0], running.calls[-1]) == ("stop accepting", "accept")
    assert is_reached(running.listener)


def test_the_keeper_connects_again_to_a_next_one_that_lives(running: Running, path: str) -> None:
    running.results = [MOVED, LinkLost("no answer"), MOVED, LAST]
    with requesting(HandOver(running)) as link, contextlib.closing(take_over(path, link, LOGS)) as got:
        got.enter()
        assert got.wait()["moved"] == 5
    assert running.calls == ["stop accepting", "connect", "finish"]


def test_a_batch_is_as_large_as_can_be_moved_in_a_short_time() -> None:
    assert next_size(32, 32, 0.001) == 64  # at most doubled
    assert next_size(100, 80, 0.012) == 80
    assert next_size(100, 100, 0.001) == 100
    assert next_size(32, 32, 1.0) == 8


def test_clients_that_come_over_a_last_link_are_waited_for(running: Running, path: str) -> None:
    running.links = 1
    with requesting(HandOver(running)) as link, contextlib.closing(take_over(path, link, LOGS)) as got:
        got.enter()
        assert got.predecessor.wait(0.1) is None
        running.links = 0
        assert got.wait()


@pytest.mark.parametrize("result", [Moved(moved=0, refused=7, left=7), TypeError("a mistake")])
def test_clients_that_can_not_be_moved_end(
    running: Running, path: str, monkeypatch: pytest.MonkeyPatch, result: Moved | Exception
) -> None:
    monkeypatch.setattr(upgrade, "_NO_PROGRESS", 0.1)
    running.results = [MOVED, result]
    with requesting(HandOver(running)) as link, contextlib.closing(take_over(path, link, LOGS)) as got:
        got.enter()
        assert got.wait()["moved"] == 2
    assert running.calls == ["stop accepting", "finish, spread"]


def test_the_next_process_is_the_keeper_if_the_running_one_ends_while_it_waits(path: str) -> None:
    ours, theirs = socket.socketpair()
    lifeline, other = Lifeline.pair()
    running = link_of(theirs)
    with listen(path) as listener, other:
        running.send({"op": "listener"}, fds=[listener.socket.fileno(), listener.lock, other.fileno()])
        got = take_over(path, link_of(ours), LOGS)
        listener.close(remove=False)
    running.close()
    # The system closes the descriptors of a process that ends in some order.
    closing = threading.Timer(0.0, lifeline.close)
    closing.start()
    got.enter()
    closing.join()
    assert got.wait() == {}
    assert is_reached(got.listener)
    got.close()


def test_only_one_process_replaces_a_keeper(running: Running, path: str) -> None:
    hand_over = HandOver(running)
    with requesting(hand_over) as link, contextlib.closing(take_over(path, link, LOGS)) as got:
        with requesting(hand_over) as late, pytest.raises(UpgradeError, match="another process is replacing it"):
            take_over(path, late, LOGS)
        got.enter()
        assert got.wait()


def test_a_keeper_is_not_replaced_before_it_has_all_clients(running: Running, path: str) -> None:
    predecessor, other = Lifeline.pair()
    hand_over = HandOver(running, predecessor)
    with requesting(hand_over) as link, pytest.raises(UpgradeError, match="has not got all clients"):
        take_over(path, link, LOGS)
    other.close()
    assert predecessor.wait(90) == {}
    with requesting(hand_over) as link:
        take_over(path, link, LOGS).close()
    predecessor.close()


def test_a_worker_can_not_replace_a_keeper(running: Running, path: str) -> None:
    with requesting(HandOver(running), "worker") as link, pytest.raises(UpgradeError, match="a worker can't"):
        take_over(path, link, LOGS)
    assert not running.calls


def test_a_keeper_of_another_log_is_not_replaced(running: Running, path: str) -> None:
    with requesting(HandOver(running)) as link, pytest.raises(UpgradeError, match="another log"):
        take_over(path, link, ["another"])
    assert not running.calls


def test_descriptors_of_an_upgrade_are_closed(running: Running, path: str) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a list, not objects
    with requesting(HandOver(running)) as link:
        take_over(path, link, LOGS).close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_service_manager_follows(running: Running, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(upgrade, "notify", lambda *lines: sent.extend(lines))
    monkeypatch.setattr(upgrade, "reloading", lambda: sent.append("RELOADING=1"))
    hand_over = HandOver(running)
    with requesting(hand_over) as link:
        take_over(path, link, LOGS).close()
    assert sent == ["RELOADING=1", "READY=1"]
    sent.clear()
    with requesting(hand_over) as link, contextlib.closing(take_over(path, link, LOGS)) as got:
        got.enter()
        got.wait()
    assert sent == ["RELOADING=1", "MAINPID=4711"]
