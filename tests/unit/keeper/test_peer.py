"""Processes of one user find, check and refuse each other."""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync.keeper import peer
from ssesync.keeper.framing import Link, LinkLost, LinkTimeout
from ssesync.keeper.peer import Listener, PeerRefused, accept, accept_link, connect, greet, listen, make_hello

from .processes import added, closed, give, line, opened, run, started

HELLO = make_hello("worker", ["e"])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "folder" / "keeper.sock")


@pytest.fixture
def listener(path: str) -> Iterator[Listener]:
    with listen(path) as listener:
        yield listener


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Make a call on a thread. The result waits for it, and returns or raises what it has."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(90)
        [value] = found
        if isinstance(value, BaseException):
            raise value
        return value

    return result


def ended(pidfd: int, timeout: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout)[0])


@pytest.mark.slow
def test_two_processes_link_and_notice_the_end_of_each_other(listener: Listener) -> None:
    program = """
        import os, sys
        from ssesync.keeper.peer import connect, make_hello
        link = connect(sys.argv[1], 5, make_hello("keeper", ["b", "a"], stopping=True))
        print(os.getpid(), link.pid, link.peer["role"], link.version, link.pidfd >= 0, flush=True)
        sys.stdin.readline()
    """
    with started(program, listener.path) as process, accept(listener, HELLO) as link:
        assert line(process) == f"{process.pid} {os.getpid()} worker 1 True"
        assert link.peer == {
            "op": "hello", "version": 1, "oldest": 1, "role": "keeper", "pid": process.pid, "logs": ["a", "b"],
            "stopping": True, "most": 250,
        }  # fmt: skip
        assert link.pid == process.pid
        assert not ended(link.pidfd, 0)
        give(process)
        with pytest.raises(LinkLost):
            link.receive(5)
        assert ended(link.pidfd, 5)


def test_the_socket_and_its_folder_are_for_one_user_alone(path: str) -> None:
    with listen(path) as listener:
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(path + ".lock").stat().st_mode) == 0o600
        assert not os.get_inheritable(listener.lock)
    assert not list(Path(path).parent.iterdir())


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    def listens_in(folder: Path) -> str:
        before = opened()
        with pytest.raises(OSError) as caught:
            listen(folder / "a.sock")
        assert not added(before)
        return f"{type(caught.value).__name__}: {caught.value.strerror}"

    opens = tmp_path / "open"
    opens.mkdir(0o750)
    assert "PermissionError: other users can enter the folder" in listens_in(opens)
    own = tmp_path / "own"
    own.mkdir(0o700)
    link = tmp_path / "link"
    link.symlink_to(own)
    assert "NotADirectoryError" in listens_in(link)
    assert "FileNotFoundError" in listens_in(tmp_path / "none" / "a")
    assert "107 bytes" in listens_in(own / ("x" * 107))
    (own / "a.sock").write_text("a user's file")
    assert "is no socket" in listens_in(own)
    assert (own / "a.sock").read_text() == "a user's file"
    if os.geteuid() == 0:
        os.chown(own, 65534, 65534)
        assert "PermissionError: " in (text := listens_in(own))
        assert "belongs to user 65534" in text


def test_one_process_listens_at_a_path(listener: Listener) -> None:
    before = opened()
    with pytest.raises(BlockingIOError, match="another process listens"):
        listen(listener.path)
    assert not added(before)
    listener.close()
    listener.close()
    assert closed(before) >= 3
    with listen(listener.path):
        assert Path(listener.path).exists()
        listener.close()
        assert Path(listener.path).exists()


@pytest.mark.slow
def test_the_socket_of_a_killed_process_is_replaced(path: str) -> None:
    program = """
        import sys
        from ssesync.keeper.peer import listen
        listener = listen(sys.argv[1])
        print("listens", flush=True)
        sys.stdin.readline()
    """
    with started(program, path) as process:
        assert line(process) == "listens"
        with pytest.raises(BlockingIOError):
            listen(path)
    with pytest.raises(ConnectionRefusedError):
        connect(path, 5, HELLO)
    with listen(path) as listener:
        accepting = in_thread(lambda: accept(listener, HELLO))
        with connect(path, 5, HELLO), accepting():
            pass


def test_a_process_that_is_away_is_an_error_at_once(path: str, listener: Listener) -> None:
    with pytest.raises(FileNotFoundError):
        connect(path + "x", 5, HELLO)
    waiting = in_thread(listener.accept)
    while not listener._calls:
        pass
    listener.close()
    with pytest.raises(OSError, match="is closed"):
        waiting()
    assert listener.socket.fileno() == -1


def test_a_hello_is_waited_for(listener: Listener) -> None:
    before = opened()
    with pytest.raises(LinkTimeout):
        connect(listener.path, 0.05, HELLO)
    assert not added(before)
    accept_link(listener).close()  # of the first attempt
    connecting = in_thread(lambda: connect(listener.path, 5, HELLO))
    link = accept_link(listener)
    assert link.pid == os.getpid()
    greet(link, HELLO)
    with link, connecting() as other:
        assert other.peer == HELLO
    assert not added(before)


def test_a_full_backlog_is_waited_for(listener: Listener) -> None:
    waiting = []
    while not waiting or waiting[-1].connect_ex(listener.path) == 0:
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
    with pytest.raises(BlockingIOError):
        connect(listener.path, 0.03, HELLO)
    connecting = in_thread(lambda: connect(listener.path, 5, HELLO))
    for _ in waiting[1:]:
        listener.accept().close()
    for sock in waiting:
        sock.close()
    with accept(listener, HELLO), connecting():
        pass


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        ({"version": 3, "oldest": 2}, "versions 2 to 3 .* this process 1 to 1: upgrade the older one"),
        ({"version": 0, "oldest": 0}, "versions 0 to 0"),
        ({"op": "take"}, "its hello is none"),
        ({"pid": "1"}, "its hello is none"),
        ({"logs": [1]}, "its hello is none"),
        ({"stopping": 1}, "its hello is none"),
    ],
)
def test_a_process_that_can_not_be_used_is_refused_with_the_reason(
    listener: Listener, theirs: dict[str, Any], text: str
) -> None:
    accepting = in_thread(lambda: accept(listener, HELLO))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(listener.path)
        link = Link(sock)
        link.send({**HELLO, **theirs})
        assert link.receive(5).head == HELLO
        refused = link.receive(5).head
        with pytest.raises(PeerRefused, match=text) as caught:
            accepting()
        assert refused["op"] == "refused"
        assert refused["why"] in str(caught.value)


def test_a_newer_version_that_can_use_this_one_is_accepted(listener: Listener) -> None:
    accepting = in_thread(lambda: accept(listener, HELLO))
    with connect(listener.path, 5, {**HELLO, "version": 7, "new": [1]}) as link, accepting() as other:
        assert (link.version, other.version) == (1, 1)
        assert other.peer["new"] == [1]


def test_a_reason_that_came_before_the_end_is_raised(listener: Listener) -> None:
    def refuse() -> None:
        peer.refuse(accept_link(listener), "there are enough links")

    for _ in range(20):  # before the hello is sent, or after it
        refusing = in_thread(refuse)
        with pytest.raises(PeerRefused, match="refuses this one: there are enough links"):
            connect(listener.path, 5, HELLO)
        refusing()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="it becomes another user")
def test_another_users_process_is_refused_by_both(listener: Listener, tmp_path: Path) -> None:
    program = """
        import os, sys
        from ssesync.keeper.peer import PeerRefused, accept, connect, listen, make_hello
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
        try:
            connect(sys.argv[1], 5, make_hello("worker", []))
        except PeerRefused as error:
            print(error.strerror)
        with listen(sys.argv[2]) as listener:
            print("listens", flush=True)
            link = accept(listener, make_hello("worker", []))
            print(link.peer["pid"], flush=True)
            sys.stdin.readline()
    """
    # Each of them could be reached if its folder's mode were changed.
    for folder in (*tmp_path.parents, tmp_path, Path(listener.path).parent):
        if folder.owner() == "root" and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    Path(listener.path).chmod(0o666)
    theirs = tmp_path / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 65534, 65534)
    with started(program, listener.path, str(theirs / "a.sock")) as process:
        with pytest.raises(PeerRefused, match=f"process {process.pid} is user 65534's, and this one user 0's"):
            accept(listener, HELLO)
        assert "refuses this one: process" in line(process)
        assert line(process) == "listens"
        # A user's process accepts one of root's. Root's refuses a user's, whichever of them listens.
        with pytest.raises(PeerRefused, match="is user 65534's"):
            connect(theirs / "a.sock", 5, HELLO)


@pytest.mark.slow
def test_another_process_continues_with_a_listener(listener: Listener, path: str) -> None:
    program = """
        import sys
        from ssesync.keeper.peer import Listener, accept, connect, make_hello
        link = connect(sys.argv[1], 5, make_hello("keeper", []))
        listener = Listener.adopt(sys.argv[1], *link.receive(5).claim())
        link.send({"op": "listens"})
        accept(listener, make_hello("keeper", [])).send({"op": "served"})
        sys.stdin.readline()
        listener.close()
    """
    before = opened()
    with started(program, path) as process:
        with accept(listener, HELLO) as link:
            link.send({"op": "replace"}, b"", [listener.socket.fileno(), listener.lock])
            assert link.receive(5).op == "listens"
        listener.close(remove=False)
        with connect(path, 5, HELLO) as link:
            # The process that listens now, and not the one that has made the socket.
            assert link.pid == process.pid
            assert not ended(link.pidfd, 0)
            assert link.receive(5).op == "served"
        with pytest.raises(BlockingIOError):
            listen(path)
        give(process)
        assert process.wait(90) == 0
    assert closed(before) >= 3
    assert not Path(path).exists()
    assert not Path(path + ".lock").exists()


def test_descriptors_of_something_else_are_not_adopted(listener: Listener, tmp_path: Path) -> None:
    before = opened()
    for path, fd in [
        (listener.path, os.open(os.devnull, os.O_RDONLY)),
        (listener.path, socket.socket().detach()),
        (str(tmp_path / "other"), os.dup(listener.socket.fileno())),
    ]:
        with pytest.raises(OSError):
            Listener.adopt(path, fd, os.dup(listener.lock))
    assert not added(before)


def test_a_process_that_did_not_connect_itself_is_not_watched(listener: Listener) -> None:
    # A link that was passed to another process: the kernel's record is of the first one.
    accepting = in_thread(lambda: accept(listener, HELLO))
    with connect(listener.path, 5, {**HELLO, "pid": 1}) as link, accepting() as other:
        assert link.pidfd >= 0
        assert other.pidfd == -1


def test_a_forked_child_keeps_neither_socket_nor_lock(listener: Listener) -> None:
    gate, done = os.pipe()
    child = os.fork()
    if not child:
        os.close(done)
        os.read(gate, 1)
        os._exit(0)
    try:
        path = listener.path
        listener.close()
        with listen(path):
            pass
    finally:
        os.close(done)
        os.close(gate)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_under_gevent_other_greenlets_run_while_a_listener_waits(path: str) -> None:
    program = """
        from gevent import monkey; monkey.patch_all()
        import sys, threading
        from ssesync.keeper.peer import accept, connect, listen, make_hello
        listener = listen(sys.argv[1])
        links = []
        def accept_all():
            try:
                while True:
                    links.append(accept(listener, make_hello("keeper", [])))
            except OSError as error:
                links.append(error.strerror[-6:])
        thread = threading.Thread(target=accept_all)
        thread.start()
        for _ in range(3):
            connect(sys.argv[1], 5, make_hello("worker", []))
        listener.close()
        thread.join(90)
        print(len(links), links[-1])
    """
    assert run(program, path) == "4 closed\n"
