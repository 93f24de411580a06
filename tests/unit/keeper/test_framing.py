"""Messages between two processes, over real unix sockets."""

from __future__ import annotations

import array
import contextlib
import json
import os
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from ssesync.keeper import framing, message
from ssesync.keeper.framing import DescriptorsLost, Link, LinkError, LinkLost, LinkTimeout

from .processes import added, closed, opened, run


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    one, other = map(Link, socket.socketpair())
    with one, other:
        yield one, other


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Link]]:
    """A peer that may send anything, and a link that receives it."""
    one, other = socket.socketpair()
    with one, Link(other) as link:
        yield one, link


def encoded(head: object, blob: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("!II", len(text), len(blob)) + text + blob


def send_with(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


@contextlib.contextmanager
def pipes(count: int) -> Iterator[list[int]]:
    """Write ends of as many pipes."""
    made = [os.pipe() for _ in range(count)]
    try:
        yield [write for _, write in made]
    finally:
        for pair in made:
            for fd in pair:
                os.close(fd)


def test_each_message_has_its_own_blob_and_descriptors(ends: tuple[Link, Link]) -> None:
    one, other = ends
    before = opened()
    with pipes(3) as fds:
        one.send({"op": "a", "n": 1}, b"blob", fds[:1])
        one.send({"op": "b"})
        one.send({"op": "c"}, b"", fds[1:])
        frames = [other.receive(5) for _ in range(3)]
        assert [(frame.op, frame.head, frame.blob, len(frame.fds)) for frame in frames] == [
            ("a", {"op": "a", "n": 1}, b"blob", 1),
            ("b", {"op": "b"}, b"", 0),
            ("c", {"op": "c"}, b"", 2),
        ]
        received = [fd for frame in frames for fd in frame.fds]
        assert [os.fstat(fd).st_ino for fd in received] == [os.fstat(fd).st_ino for fd in fds]
        assert not any(map(os.get_inheritable, received))
        claimed = frames[2].claim()
        del frames, received  # the others are closed
        assert added(before) == 6 + 2
        for fd in claimed:
            os.close(fd)
    assert not added(before)


def test_the_largest_message_arrives_and_a_larger_one_is_not_sent(ends: tuple[Link, Link]) -> None:
    one, other = ends
    blob = os.urandom(1024) * (message.MAX_BLOB // 1024)
    sender = threading.Thread(target=one.send, args=({"op": "a", "x": "y" * 1_000_000}, blob))
    sender.start()
    assert other.receive(10).blob == blob
    sender.join()
    for too_large in ({"x": "y" * message.MAX_HEAD}, b""), ({}, blob + b"x"), ({}, b"", [0] * 254):
        with pytest.raises(LinkError, match="exceeds a limit"):
            one.send(*too_large)
    one.send({"op": "b"})
    assert other.receive(5).op == "b"


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!II", message.MAX_HEAD + 1, 0),
        struct.pack("!II", 2, message.MAX_BLOB + 1),
        struct.pack("!II", 0, 0),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!II", 4, 0) + b"\xff{}\x00",
        struct.pack("!II", 500_000, 0) + b"[" * 500_000,
        encoded([]),
        encoded({"x": 1}),
        encoded({"op": 1}),
        encoded({"op": "a", "fds": -1}),
        encoded({"op": "a", "fds": True}),
        encoded({"op": "a", "fds": 254}),
        encoded({"op": "a", "fds": 1}),
    ],
    ids=range(13),
)
def test_what_is_no_message_is_an_error_that_stays(raw: tuple[socket.socket, Link], data: bytes) -> None:
    peer, link = raw
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    with pytest.raises(LinkError):
        link.receive(5)
    sender.join()
    peer.sendall(encoded({"op": "a"}))
    with pytest.raises(LinkError):
        link.receive(5)


def test_descriptors_that_were_not_announced_are_closed(raw: tuple[socket.socket, Link]) -> None:
    peer, link = raw
    with pipes(2) as fds:
        before = opened()
        data = encoded({"op": "a", "fds": 1}, b"blob")
        send_with(peer, data[:5], fds[:1])
        send_with(peer, data[5:], fds[1:])
        with pytest.raises(LinkError, match="with 2 descriptors, and announced 1"):
            link.receive(5)
        assert not added(before)


def test_a_process_without_free_descriptors_gets_the_message_without_them(ends: tuple[Link, Link]) -> None:
    one, other = ends
    with pipes(10) as fds:
        before = opened()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        one.send({"op": "a", "n": 7}, b"blob", fds)
        free = [os.dup(0) for _ in range(4)]
        for fd in free[:3]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[3] + 1, hard))
        try:
            with pytest.raises(DescriptorsLost, match=r"only 3 of 10 descriptors.* limit of open files") as caught:
                other.receive(5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(free[3])
        assert caught.value.head == {"op": "a", "n": 7}
        assert not added(before)
        one.send({"op": "b"}, b"", fds)
        assert len(other.receive(5).fds) == 10


def test_a_part_of_a_message_is_kept_until_the_rest_arrives(raw: tuple[socket.socket, Link]) -> None:
    peer, link = raw
    data = encoded({"op": "a"}, b"blob")
    with pytest.raises(LinkTimeout):
        link.receive(0)
    for byte in data[:-1]:
        peer.sendall(bytes([byte]))
        with pytest.raises(LinkTimeout):
            link.receive(0)
    peer.sendall(data[-1:])
    assert link.receive(0).blob == b"blob"


def test_a_message_that_stalls_is_an_error(raw: tuple[socket.socket, Link], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MESSAGE_TIMEOUT", 0.05)
    peer, link = raw
    with pipes(1) as fds:
        before = opened()
        send_with(peer, encoded({"op": "a", "fds": 1})[:12], fds)
        with pytest.raises(LinkError, match=r"did not arrive within 0.05 s"):
            link.receive(None)
        assert not added(before)


def test_a_peer_that_does_not_receive_is_an_error_after_which_nothing_is_sent(
    ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MESSAGE_TIMEOUT", 0.05)
    one, other = ends
    with pytest.raises(LinkTimeout, match="does not receive"):
        one.send({"op": "a"}, b"x" * message.MAX_BLOB)
    with pytest.raises(LinkLost, match="could not be sent to its end"):
        one.send({"op": "b"})
    one.cancel()
    with pytest.raises(LinkLost, match="in the middle of a message"):
        other.receive(5)


def test_an_answer_that_came_before_the_cancel_counts_and_none_can_come_after_it(ends: tuple[Link, Link]) -> None:
    one, other = ends
    other.send({"op": "taken"}, b"x" * 50_000)
    one.cancel()
    with pytest.raises(LinkLost):
        other.send({"op": "late"})
    assert one.receive(0).op == "taken"
    with pytest.raises(LinkLost):
        one.receive(0)


@pytest.mark.parametrize("ending", ["close", "cancel", "peer"])
def test_a_call_in_progress_ends_with_the_link(ends: tuple[Link, Link], ending: str) -> None:
    one, other = ends
    raised: list[BaseException] = []

    def receive() -> None:
        try:
            one.receive(None)
        except LinkLost as error:
            raised.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    while not one._calls:
        pass
    before = opened()
    {"close": one.close, "cancel": one.cancel, "peer": other.cancel}[ending]()
    thread.join(90)
    assert raised
    if ending == "close":
        assert closed(before) >= 1
        with pytest.raises(LinkLost, match="the link is closed"):
            one.send({"op": "a"})
        one.close()


def test_what_has_arrived_is_received_although_another_thread_has_closed_the_link(ends: tuple[Link, Link]) -> None:
    one, other = ends
    before = opened()
    with one.hold():
        other.send({"op": "taken"})
        closing = threading.Thread(target=one.close)
        closing.start()
        closing.join()
        with pytest.raises(LinkLost):
            one.send({"op": "a"})
        assert one.receive(0).op == "taken"
        with pytest.raises(LinkLost):
            one.receive(0)
        assert one._sock.fileno() >= 0
    assert closed(before) >= 1
    with pytest.raises(LinkLost, match="the link is closed"):
        one.receive(0)


def test_a_forked_child_does_not_keep_the_link(ends: tuple[Link, Link]) -> None:
    one, other = ends
    gate, done = os.pipe()
    child = os.fork()
    if not child:
        os.close(done)
        try:
            one.send({"op": "a"})
        except LinkLost:
            os.read(gate, 1)  # until the parent has seen the end
            os._exit(0)
        os._exit(1)
    try:
        one.send({"op": "b"})
        one.close()
        assert other.receive(5).op == "b"
        with pytest.raises(LinkLost, match="between messages"):
            other.receive(5)
    finally:
        os.close(done)
        os.close(gate)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="another user's limit")
def test_more_descriptors_underway_than_the_user_may_have_are_waited_for() -> None:
    # As many as the limit of open files allows wait in other links of the same user.
    program = """
        import os, resource, socket, threading, time
        from ssesync.keeper.framing import Link
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        pairs = [tuple(map(Link, socket.socketpair())) for _ in range(3)]
        for one, _ in pairs[:2]:
            one.send({"op": "a"}, b"", [0] * 25)
        def receive_later():
            time.sleep(0.2)
            for _, other in pairs[:2]:
                other.receive(5).close()
        receiving = threading.Thread(target=receive_later)
        receiving.start()
        began = time.monotonic()
        pairs[2][0].send({"op": "b"}, b"", [0] * 20)
        receiving.join()
        print(len(pairs[2][1].receive(5).fds), time.monotonic() - began > 0.1)
    """
    assert run(program) == "20 True\n"


@pytest.mark.slow
def test_under_gevent_other_greenlets_run_while_a_link_waits() -> None:
    program = """
        from gevent import monkey; monkey.patch_all()
        import gevent, os, socket, threading
        from ssesync.keeper.framing import Link, LinkLost
        one, other = map(Link, socket.socketpair())
        got = []
        def receive():
            try:
                while True:
                    frame = other.receive(None)
                    got.append((frame.op, len(frame.blob), len(frame.fds)))
            except LinkLost as error:
                got.append("lost")
        thread = threading.Thread(target=receive)
        thread.start()
        one.send({"op": "a"}, b"x" * 3_000_000, [0, 1])
        one.send({"op": "b"})
        gevent.sleep(0.1)
        other.close()
        thread.join(90)
        print(got)
    """
    assert run(program) == "[('a', 3000000, 2), ('b', 0, 0), 'lost']\n"
