"""Hundreds of clients, and all that they do, on one thread: a loop that the test itself turns.

Every client is as strict as can be: a byte that belongs to no answer, no chunk or no line of an event stream is an
error.
"""

from __future__ import annotations

import heapq
import itertools
import random
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from tests.live.channels.processes import TIMEOUT

from .clients import Caller, Came, Client
from .member import Member

Address = tuple[str, int] | str
#: Requests of callers.
Requests = Iterator[tuple[str, Callable[[bytes], object]]]


class Crowd:
    """Clients of one server.

    :param address: of the server: host and port, or the path of a unix socket.
    :param at_once: how many may be between connecting and their answer's head.
    """

    def __init__(self, address: Address, *, seed: int = 1, at_once: int = 100) -> None:
        self.address = address
        self.seed = seed
        self.dice = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.queue: deque[Member] = deque()
        self.clients: list[Client] = []
        self.callers: list[Caller] = []
        self._at_once = at_once
        self._arriving: set[Member] = set()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._events: dict[Came, Came] = {}

    def join(self, count: int, path: str, **options: Any) -> list[Client]:
        """Let clients come."""
        clients = [Client(self, len(self.clients) + number, path, **options) for number in range(count)]
        self.clients += clients
        for client in clients:
            client.come()
        return clients

    def gather(self, count: int, path: str, **options: Any) -> list[Client]:
        """Let clients come, and wait until their streams have begun."""
        clients = self.join(count, path, **options)
        self.until(lambda: all(client.following for client in clients), f"{count} streams have begun")
        return clients

    def call(self, requests: Requests) -> Caller:
        """Let one ask for ordinary answers."""
        caller = Caller(self, requests)
        self.callers.append(caller)
        caller.come()
        return caller

    def shared(self, event: Came) -> Came:
        """The one object for all equal events: hundreds of clients have the same thousands."""
        return self._events.setdefault(event, event)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call something in so many seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), function))

    def until(self, condition: Callable[[], object], what: str, within: float = TIMEOUT) -> None:
        """Turn until the condition holds."""
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"this did not happen: {what}; seed {self.seed}; {self.clients[:2]}"
            for _ in range(5):
                self.turn()

    def until_all(
        self, condition: Callable[[Client], object], what: str, clients: Iterable[Client] | None = None
    ) -> None:
        """Turn until the condition holds, or has held, for each of the clients."""
        missing = list(self.clients if clients is None else clients)

        def none_is_missing() -> bool:
            missing[:] = [client for client in missing if not condition(client)]
            return not missing

        deadline = time.monotonic() + TIMEOUT
        while not none_is_missing():
            assert time.monotonic() < deadline, (
                f"this did not happen: {what}, for {len(missing)} of them, seed {self.seed}: {missing[:3]}"
            )
            for _ in range(5):
                self.turn()

    def turn(self, longest: float = 0.02) -> None:
        """Do all that can be done at once, or wait a little for it."""
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        self._arriving = {each for each in self._arriving if each.state in ("connecting", "asking")}
        while self.queue and len(self._arriving) < self._at_once:
            member = self.queue.popleft()
            if member.state == "waiting" and not member.gone:
                self._arriving.add(member)
                member.connect()
        if self._timers:
            longest = max(0.0, min(longest, self._timers[0][0] - now))
        for key, _ in self.selector.select(longest):
            member = key.data
            # What came before may have had this one leave.
            if member.socket is key.fileobj:
                member.ready()

    def leave(self, clients: Iterable[Client] | None = None, how: str = "fin") -> None:
        """Have clients leave for good."""
        for client in self.clients if clients is None else clients:
            client.gone = True
            client.leave(how)
            if client.state == "waiting":
                client.state = "away"

    def hang_up(self) -> None:
        """Let the callers come to the end of what they have asked."""
        for caller in self.callers:
            caller.stopping = True
        self.until(lambda: all(caller.state == "away" for caller in self.callers), "all answers have come")

    def check(self, expected: Sequence[Came], clients: Iterable[Client] | None = None) -> None:
        """Fail unless each has exactly these events, in this order."""
        for client in self.clients if clients is None else clients:
            for place, (one, other) in enumerate(zip(client.events, expected, strict=False)):
                assert one == other, f"{client!r}, at {place}: {one} instead of {other}; seed {self.seed}"
            assert len(client.events) == len(expected), f"{client!r}; seed {self.seed}"

    def close(self) -> None:
        self.queue.clear()
        self._timers.clear()
        for member in [*self.clients, *self.callers]:
            member.gone = True
            member.drop()
        self.selector.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
