"""TCP clients of the processes in ``member.py``, which count every event."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ssesync.wire import Decoder
from ssesync.wire.chunked import ChunkDecoder

from .member import HEAD
from .processes import give, line, started

TIMEOUT = 60.0


class Member:
    """A process of ``member.py``."""

    def __init__(self, process: subprocess.Popen[str], path: str, port: int) -> None:
        self.process = process
        self.path = path
        self._port = port

    def begin_move(self, other: Member) -> None:
        give(self.process, f"move {other.path}")

    def result(self) -> dict[str, Any]:
        return dict(json.loads(line(self.process)))

    def move(self, other: Member) -> dict[str, Any]:
        self.begin_move(other)
        return self.result()

    def snapshot(self) -> dict[str, Any]:
        give(self.process, "snapshot")
        return self.result()

    def await_counts(self, **counts: int) -> None:
        """Wait until the process has counted so many."""
        deadline = time.monotonic() + TIMEOUT
        while not counts.items() <= (found := self.snapshot()).items():
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    def end(self) -> None:
        """Have it exit by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(TIMEOUT) == 0

    def join(self, count: int = 1, **options: Any) -> list[Client]:
        clients = [Client(self._port, **options) for _ in range(count)]
        read_until(clients, lambda client: client.has_head)
        return clients


@contextlib.contextmanager
def member(url: str, path: str, *faults: str, role: str = "keeper") -> Iterator[Member]:
    patch = "from gevent import monkey; monkey.patch_all(); " if "gevent" in faults else ""
    program = f"{patch}import sys; from tests.unit.keeper.member import main; main(*sys.argv[1:])"
    with started(program, url, path, role, *faults) as process:
        yield Member(process, path, int(line(process)))


class Client:
    """A client that reads when the test says so, and comes back with its last id when it is told."""

    def __init__(self, port: int, *, chunked: bool = False, stays: bool = False, last_event_id: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(
            f"{last_event_id},{'chunked' if chunked else 'plain'},{'stays' if stays else 'moves'}\n".encode()
        )
        self.socket.setblocking(False)
        self.raw = b""
        self.body = b""
        self.is_at_end = False
        self._chunks = ChunkDecoder() if chunked else None
        self._decoder = Decoder()
        self.data: list[int] = []
        self.last_event_id = last_event_id

    @property
    def has_head(self) -> bool:
        return len(self.raw) >= len(HEAD)

    def read(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.is_at_end = not data
        rest = data[max(0, len(HEAD) - len(self.raw)) :]
        self.raw += data
        body = b"".join(self._chunks.decode(rest)) if self._chunks else rest
        assert not (self._chunks and self._chunks.error)
        self.body += body
        for event in self._decoder.feed(body):
            if event.type == "message":
                self.data.append(int(event.data.split()[0]))
                self.last_event_id = event.id

    def close(self) -> None:
        self.socket.close()


def read_until(clients: Iterable[Client], is_done: Callable[[Client], bool], timeout: float = TIMEOUT) -> None:
    """Read until each client has what it should have."""
    left = {client.socket.fileno(): client for client in clients if not is_done(client)}
    poll = select.epoll()
    for fd in left:
        poll.register(fd, select.EPOLLIN)
    deadline = time.monotonic() + timeout
    while left:
        assert time.monotonic() < deadline, f"{len(left)} clients wait: {[c.data[-3:] for c in left.values()][:5]}"
        for fd, _ in poll.poll(0.2):
            client = left[fd]
            client.read()
            if is_done(client):
                poll.unregister(fd)
                del left[fd]
            else:
                assert not client.is_at_end, f"a client was ended after {client.data[-3:]}"
    poll.close()


def while_reading(clients: Iterable[Client], call: Callable[[], Any]) -> Any:
    """Call while the clients read."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    while thread.is_alive():
        for client in clients:
            client.read()
        thread.join(0.01)
    [result] = found
    return result
