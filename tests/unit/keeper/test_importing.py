"""The links of a process: what it takes, what it refuses, and what becomes of clients whose process was killed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync import Broker, CloseReason, open_broker
from ssesync.keeper import framing, peer
from ssesync.keeper.exporting import Exporter, Moved
from ssesync.keeper.framing import Frame, Link, LinkLost
from ssesync.keeper.importing import Importer, epochs
from ssesync.keeper.peer import Listener, PeerRefused, connect, listen, make_hello
from ssesync.server import descriptors

from ..channels.clients import Client, await_events, await_that, turn
from ..channels.test_transfer import freeze, on_reactor
from .clients import member, read_until
from .processes import added, opened
from .test_exporting import broker, check, close, publish, url

__all__ = ["broker", "url"]

Join = Callable[..., Client]
HELLO = make_hello("worker", [])


@pytest.fixture
def other(url: str) -> Iterator[Broker]:
    """The broker of the process that takes clients: here the same process."""
    with open_broker(url) as other:
        other._ensure_listening()
        yield other
    turn()


@pytest.fixture
def join(broker: Broker) -> Iterator[Join]:
    joined = []

    def join(*channels: str, **options: Any) -> Client:
        joined.append(client := Client(broker, *channels, **options))
        client.subscription = None  # type: ignore[assignment]
        turn()
        return client

    yield join
    for client in joined:
        client.close()
    turn()


@contextlib.contextmanager
def served(importer: Importer) -> Iterator[Link]:
    """A link that an importer serves, on a thread as it serves those that it accepts."""
    one, two = map(Link, socket.socketpair())
    with one:
        one.send(HELLO)
        thread = threading.Thread(target=importer._run, args=(two, lambda: HELLO))
        thread.start()
        assert one.receive(5).op == "hello"
        yield one
    thread.join(90)
    assert not thread.is_alive()


@contextlib.contextmanager
def listening(importer: Importer, folder: Path) -> Iterator[Listener]:
    with listen(folder / "run" / "a.sock") as listener:
        importer.start(listener, lambda: HELLO)
        yield listener
        importer.cancel()
        assert importer.wait(90)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Batches.


def test_a_batch_moves_and_its_descriptors_are_above_the_floor(
    broker: Broker, other: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_division", descriptors.Division(300, 1))
    clients = [join("a", key="ann"), join("a", "b:1", patterns=["c:*"])]
    importer = Importer(lambda: [other])
    with served(importer) as link, Exporter(link, broker) as exporter:
        before = opened()
        assert exporter.move() == Moved(2, 0, 0)
        await_that(lambda: not added(before), "the batch is closed")
        assert exporter.move() == Moved(0, 0, 0)
        publish(broker, 0, 1)
        await_events(1, *clients)
        fds = [each.fd for each in other.dispatcher._members]  # type: ignore[attr-defined]
        assert len(fds) == 2
        assert all(fd >= 300 and not os.get_inheritable(fd) for fd in fds)
        assert importer.snapshot() == {"links": 1, "taken": 2, "refused": 0, "recovered": 0}
        assert 0 < exporter.worst < 10
    assert importer.snapshot()["links"] == 0


def test_a_revocation_just_before_the_clients_are_frozen_goes_with_them(
    broker: Broker, other: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = join("a", key="ann")
    freeze_batch = Exporter._freeze

    def revoke_before(*args: Any) -> Any:
        # Its request to end the client waits until the reactor's thread has frozen it.
        before = broker.dispatcher.handled
        other.revoke("ann")
        await_that(lambda: min(each.dispatcher.handled for each in (broker, other)) > before, "both have handled it")
        return freeze_batch(*args)

    monkeypatch.setattr(Exporter, "_freeze", revoke_before)
    with served(Importer(lambda: [other])) as link, Exporter(link, broker) as exporter:
        assert exporter.move().refused == 1
        assert "revoked" in exporter.why
    await_that(lambda: client.reason is CloseReason.REVOKED, "the client was revoked where it is")


def test_each_client_that_can_not_be_served_is_refused_by_itself(
    broker: Broker, other: Broker, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    client = join("a")
    position = broker.dispatcher
    [frozen] = freeze(broker)
    good, fd = {**frozen.client.to_plain(), "unsent": 0}, frozen.client.connection.fd
    variants = [
        (good, fd, ""),
        ({"unsent": 0}, fd, "a client can't be read"),
        ({**good, "settings": {"keep_alive": -1}}, fd, "keep_alive"),
        ({**good, "policy": {"overflow": "?"}}, fd, "overflow"),
        ({**good, "key": 1}, fd, "expected text, got 1"),
        ({**good, "place_channels": []}, fd, "at least one channel"),
        (good, os.open(os.devnull, os.O_RDWR), "no socket"),
        ({**good, "of a later version": [1]}, fd, ""),
    ]
    token = os.eventfd(0)
    importer = Importer(lambda: [other])
    with served(importer) as link:
        before = opened()
        link.send(
            {
                "op": "take", "epoch": position.epoch, "position": position.handled,
                "clients": [plain for plain, _, _ in variants],
            },
            b"", [token, *(fd for _, fd, _ in variants)],
        )  # fmt: skip
        refused = link.receive(5).head["refused"]
        on_reactor(frozen.release)
        assert [refused.get(str(index), "") != "" for index in range(8)] == [why != "" for _, _, why in variants]
        assert all(why in refused.get(str(index), "") for index, (_, _, why) in enumerate(variants))
        await_that(lambda: added(before) == 1, "descriptors were closed")
        assert importer.snapshot() == {"links": 1, "taken": 2, "refused": 6, "recovered": 0}
    os.close(token)
    os.close(variants[6][1])
    assert not warnings(caplog)
    client.close()
    await_that(lambda: not len(other.dispatcher), "both are gone")


@pytest.mark.parametrize("why", ["no broker", "another log", "refusing", "full"])
def test_a_process_that_can_not_take_clients_refuses_all_and_they_stay(
    broker: Broker, join: Join, other: Broker, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = join("a")
    brokers = {"no broker": [], "another log": [open_broker(f"sqlite:///{tmp_path / 'other.db'}")]}.get(why, [other])
    assert len(epochs(brokers)) == len(brokers)  # which opens their files
    importer = Importer(lambda: brokers)
    if why == "refusing":
        importer.refusing = "this process stops"
    if why == "full":
        monkeypatch.setattr("ssesync.server.registry.detached_limit", lambda settings: 0)
    with served(importer) as link, Exporter(link, broker) as exporter:
        before = opened()
        assert exporter.move() == Moved(0, 1, 1)
        expected = {"refusing": "this process stops", "full": "may hold 0"}.get(why, "has not opened the log")
        assert expected in exporter.why
        await_that(lambda: not added(before), "the batch is closed")
        publish(broker, 0, 1)
        await_events(1, client)
    for each in brokers:
        each.close()


def test_the_logs_of_a_process_are_known_by_their_epochs(broker: Broker, tmp_path: Path) -> None:
    with open_broker("memory://") as memory, open_broker(f"sqlite:///{tmp_path}/other.db") as second:
        found = epochs([broker, memory, second])
        assert [len(found), found[0]] == [2, broker.position().rpartition("-")[0]]
    assert epochs([second]) == []


def test_a_head_that_is_too_large_is_divided_and_a_client_that_is_stays(
    broker: Broker, other: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssesync.keeper.message.MAX_HEAD", 5000)
    clients = [join("a", *(f"{number:0200}" for number in range(count))) for count in (8, 30, 8, 8)]
    importer = Importer(lambda: [other])
    with served(importer) as link, Exporter(link, broker) as exporter:
        assert exporter.move() == Moved(3, 1, 1)
        assert "exceeds a limit" in exporter.why
        publish(broker, 0, 1)
        await_events(1, *clients)


# An acknowledgement that comes late, or never.


class Fake:
    """A process at the other end of a link: it receives a batch, and the test says when it answers."""

    def __init__(self, broker: Broker) -> None:
        self.link, self._own = map(Link, socket.socketpair())
        self.frame: Frame | None = None
        self._exporter = Exporter(self.link, broker)
        self.outcome: list[Any] = []
        self._thread = threading.Thread(target=self._move)
        self._thread.start()
        self.frame = self._own.receive(5)

    def _move(self) -> None:
        try:
            self.outcome.append(self._exporter.move())
        except Exception as error:
            self.outcome.append(error)

    def answer(self, **values: Any) -> None:
        self._own.send({"op": "taken", "refused": {}, **values})

    def end(self) -> Any:
        self._thread.join(90)
        self._exporter.close()
        self.link.close()
        self._own.close()
        [outcome] = self.outcome
        return outcome


def test_an_answer_that_arrives_before_the_link_is_cancelled_counts(
    broker: Broker, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssesync.keeper.exporting.ANSWER_TIMEOUT", 0.02)
    client = join("a")
    cancel = Link.cancel
    is_made = threading.Event()

    def answer_and_cancel(link: Link) -> None:
        assert is_made.wait(90)
        fake.answer()
        cancel(link)
        with pytest.raises(LinkLost):
            fake.answer()

    with monkeypatch.context() as patch:
        patch.setattr(Link, "cancel", answer_and_cancel)
        fake = Fake(broker)
        is_made.set()
        outcome = fake.end()
    assert isinstance(outcome, LinkLost)
    assert fake._exporter.moved == 1
    turn()
    assert len(broker.dispatcher) == 0
    assert fake.frame is not None
    fake.frame.close()
    await_that(lambda: client.read() or client.is_at_end, "nobody serves it, as the test has not")


@pytest.mark.parametrize("answer", [{"op": "error"}, {"op": "refused", "why": "no"}, None, "closed"])
def test_clients_without_an_acknowledgement_are_served_again_and_the_token_is_set(
    broker: Broker, join: Join, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is None:
        monkeypatch.setattr("ssesync.keeper.exporting.ANSWER_TIMEOUT", 0.02)
    client = join("a")
    fake = Fake(broker)
    assert fake.frame is not None
    token = fake.frame.fds[0]
    if isinstance(answer, dict):
        fake.answer(**answer)
    elif answer == "closed":
        fake.link.close()
    publish(broker, 0, 1)
    assert isinstance(fake.end(), (LinkLost, framing.LinkError))
    assert os.eventfd_read(token) == 1
    await_events(1, client)
    with pytest.raises(LinkLost, match="at an earlier batch"):
        fake._exporter.move()


def test_an_answer_that_is_partly_nonsense_acknowledges(broker: Broker, join: Join) -> None:
    join("a"), join("a")
    fake = Fake(broker)
    fake.answer(refused=[0])
    assert fake.end() == Moved(2, 0, 0)


# Links.


@pytest.mark.parametrize(
    "message",
    [
        ({"op": "take"}, b"", 0),
        ({"op": "take", "epoch": "e", "position": 0, "clients": [{}]}, b"", 2),
        ({"op": "take", "epoch": "e", "position": 0, "clients": [{"unsent": 1}]}, b"", 2),
        ({"op": "take", "epoch": "e", "position": 0, "clients": [{"unsent": -1}, {"unsent": 1}]}, b"", 3),
        ({"op": "take", "epoch": "e", "position": 0, "clients": [{"unsent": 0}]}, b"", 1),
        ({"op": "take", "epoch": "e", "position": 0, "clients": [1]}, b"", 2),
        ({"op": "take", "epoch": 1, "position": 0, "clients": []}, b"", 1),
        ({"op": "take", "epoch": "e", "position": "0", "clients": []}, b"", 1),
    ],
    ids=range(8),
)
def test_a_batch_that_is_none_is_refused_with_one_line(
    message: tuple[dict[str, Any], bytes, int], caplog: pytest.LogCaptureFixture
) -> None:
    head, blob, count = message
    importer = Importer(list)
    with served(importer) as link:
        before = opened()
        link.send(head, blob, [0] * count)
        answer = link.receive(5).head
        assert (answer["op"], answer["why"][:7]) == ("refused", "a batch")
        with pytest.raises(LinkLost):
            link.receive(5)
    assert not added(before)
    [line] = warnings(caplog)
    assert "is refused: a batch" in line


def test_other_messages_are_answered_by_handlers(caplog: pytest.LogCaptureFixture) -> None:
    def status(link: Link, frame: Frame) -> dict[str, Any]:
        return {"op": "status", "asked": frame.head["asked"]}

    def replace(link: Link, frame: Frame) -> None:
        link.send({"op": "one"})
        link.send({"op": "two"}, b"", frame.fds)

    def fail(link: Link, frame: Frame) -> None:
        raise KeyError("x")

    importer = Importer(list, {"status": status, "replace": replace, "fail": fail})
    with served(importer) as link:
        before = opened()
        link.send({"op": "status", "asked": 7})
        assert link.receive(5).head == {"op": "status", "asked": 7}
        link.send({"op": "replace"}, b"", [0])
        assert [link.receive(5).op, len(link.receive(5).fds)] == ["one", 1]
        link.send({"op": "fail"})
        assert "KeyError" in link.receive(5).head["why"]
        link.send({"op": "unknown"})
        assert link.receive(5).head == {"op": "error", "why": "there is no operation 'unknown'"}
        assert not added(before)
    assert warnings(caplog) == ["the operation 'fail' of a link failed"]


def test_links_are_bounded_and_others_are_refused_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    importer = Importer(list, max_links=2)
    with listening(importer, tmp_path) as listener:
        links = [connect(listener.path, 5, HELLO) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(PeerRefused, match="has 2 links already"):
                connect(listener.path, 5, HELLO)
        links.pop().close()
        await_that(lambda: importer.snapshot()["links"] == 1, "one has ended")
        with connect(listener.path, 5, HELLO):
            pass
        links.pop().close()
    assert len(warnings(caplog)) == 1


def test_a_process_that_sends_nothing_or_nonsense_is_refused_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.greet, "__defaults__", (0.05,))
    importer = Importer(list)
    before = opened()
    with listening(importer, tmp_path) as listener:
        for data, text in [(b"", "has sent no hello"), (b"GET / HTTP/1.1\r\n\r\n", "can't have a head of")]:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(listener.path)
                    sock.sendall(data)
                    with contextlib.suppress(ConnectionResetError):
                        while sock.recv(4096):
                            pass
            await_that(lambda text=text: text in "".join(warnings(caplog)), text)
        with connect(listener.path, 5, HELLO):
            pass
    assert len(warnings(caplog)) == 2
    await_that(lambda: not added(before), "all descriptors are closed")


def test_no_descriptors_for_a_link_are_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [True]
    accept = Listener.accept

    def accept_or_fail(self: Listener) -> socket.socket:
        if failing:
            failing.clear()
            raise OSError(24, "Too many open files")
        return accept(self)

    monkeypatch.setattr(Listener, "accept", accept_or_fail)
    with listening(Importer(list), tmp_path) as listener, connect(listener.path, 5, HELLO):
        assert len(warnings(caplog)) == 1


# Processes that are killed.


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
        assert a.process.wait(90) == -signal.SIGKILL
        b.await_counts(taken=20, recovered=20)
        publish(broker, 6, 3)
        check(clients, 9)
        close(clients)


@pytest.mark.slow
def test_clients_of_a_sender_that_is_killed_at_any_moment_are_served_by_one_process_or_end(
    broker: Broker, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with member(url, f"{folder}/b.sock") as b:
        taken = 0
        for number in range(3):
            with member(url, f"{folder}/{number}.sock") as a:
                clients = a.join(100)
                first = 3 * number
                a.begin_move(b)
                time.sleep(0.02 * number)
                a.process.kill()
                a.process.wait()
            publish(broker, first, 3)
            read_until(clients, lambda client: len(client.data) == 3 or client.is_at_end)
            served = [client for client in clients if client.data]
            assert all(client.data == [first, first + 1, first + 2] for client in served)
            taken += len(served)
            b.await_counts(taken=taken)
            close(clients)
