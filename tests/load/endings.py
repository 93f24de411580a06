"""A process that ends, or is replaced, in the middle of what its clients follow."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Sequence

from tests.live.channels.processes import Publisher

from .clients import Client
from .crowd import Crowd
from .lasting import GRACE, Lasting, check_detached, is_gone

#: Milliseconds: the stream's reconnection time, and up to twice that.
COME_BACK = range(2000, 4001)


class Interrupted:
    """Clients that follow what a process of its own publishes to a server, whatever becomes of the server."""

    def __init__(
        self, server: Lasting, crowd_of: Callable[..., Crowd], publish: Callable[..., Publisher], count: int
    ) -> None:
        self.server = server
        self.crowd = crowd = crowd_of(server)
        self._start = server.position()
        # With all that a client may do: speak an older HTTP, and say things that nobody reads, but for nginx.
        some = count // 10
        crowd.join(some, "/events?channel=all", since=self._start, version="1.0")
        crowd.join(some, "/events?channel=all", since=self._start, chatter=b"" if server.front else b"x" * 1000)
        crowd.join(count - 2 * some, "/events?channel=all", since=self._start)
        crowd.until_all(lambda client: client.following, "all streams have begun")
        self._check_detached()
        # Not so much that the machine has nothing else to do: two thousand events a second for all together. Dozens are
        # published while the server is away.
        self.publisher = publish(server, "all", "--pause", str(max(0.04, count / 2500)))
        self.more_comes()

    def more_comes(self) -> None:
        """Wait until each client has got more."""
        wanted = {client.number: len(client.events) + 5 for client in self.crowd.clients}
        self.crowd.until_all(lambda client: len(client.events) >= wanted[client.number], "more comes")

    def wait_for_ends(self) -> None:
        self.crowd.until_all(lambda client: client.ends, "the streams have ended")

    def check(self) -> None:
        """Fail unless all have come back, and have all that was ever published, once and in order."""
        self.crowd.until_all(lambda client: client.connections > 1 and client.following, "all have come back")
        self.more_comes()
        published = self.publisher.finish()
        last = published[-1][1]
        self.crowd.until_all(lambda client: client.data[-1:] == [last], "the last event came")
        history = self.server.history("all", self._start, last)
        assert {(event.id, event.data) for event in history} >= set(published)
        self.crowd.check(history)
        self._check_detached()

    def _check_detached(self) -> None:
        here = Counter(client.workers[-1] for client in self.crowd.clients)
        check_detached(self.server, here)


def check_clean_ends(clients: Sequence[Client]) -> None:
    """Fail unless the first stream of each ended as it should: with a reconnection time, the last chunk and FIN."""
    for client in clients:
        end = client.ends[0]
        assert end.clean, client
        assert end.how == ("last chunk" if end.chunked else "eof"), client
    waits = [client.ends[0].retry for client in clients]
    assert all(wait in COME_BACK for wait in waits)
    # So that they do not come back in lock-step: among 2001 times, hundreds are rarely the same.
    assert len(set(waits)) > len(waits) / 2


def by_signal(signum: signal.Signals) -> Callable[[Interrupted], None]:
    """Have the server end by a signal, and start it again."""

    def end(interrupted: Interrupted) -> None:
        server = interrupted.server
        server.signal(signum)
        interrupted.wait_for_ends()
        assert server.leaves(within=GRACE / 2)
        log = server.log()
        assert "Traceback" not in log
        # Each end is told: in a line of ours, and to the application.
        count = len(interrupted.crowd.clients)
        assert log.count("event stream closed: stream=/events reason=shutdown") == count
        assert log.count("on_close: shutdown") == count
        server.start_again()

    return end


def by_reload(interrupted: Interrupted) -> None:
    server = interrupted.server
    old = server.workers()
    server.signal(signal.SIGHUP)
    interrupted.wait_for_ends()
    interrupted.crowd.until(lambda: all(map(is_gone, old)), "the old workers are gone", within=GRACE / 2)
    assert "Traceback" not in server.log()


def by_timeout(interrupted: Interrupted, *, waits: bool) -> None:
    """A view that never comes back has the worker aborted.

    :param waits: the client of that view waits to be hung up on, and gunicorn for it, until it kills the worker.
    """
    server = interrupted.server
    [old] = server.workers()
    with server.connect() as wire:
        wire.socket.sendall(b"GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not waits:
            wire.fin()
        interrupted.wait_for_ends()
    interrupted.crowd.until(lambda: is_gone(old), "the old worker is gone", within=GRACE / 2)
    assert "WORKER TIMEOUT" in server.log()


def by_max_requests(interrupted: Interrupted) -> None:
    server = interrupted.server
    [old] = server.workers()

    def is_replaced() -> bool:
        # Older gunicorns hang up on whom they have accepted last.
        with contextlib.suppress(EOFError, ConnectionError):
            assert server.fetch("/plain") == "plain"
        return is_gone(old)

    interrupted.crowd.until(is_replaced, "the old worker is gone")
    interrupted.wait_for_ends()
