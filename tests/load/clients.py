"""Those in a crowd: clients of streams, and callers who ask for ordinary answers meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .answers import Stray
from .member import Member

if TYPE_CHECKING:
    from .crowd import Crowd

_LINE = re.compile(
    rb"(?P<comment>:[\x20-\x7e]*)|retry: (?P<retry>\d+)|id: (?P<id>[0-9a-z]{1,32}-\d{1,18})"
    rb"|event: (?P<type>[a-z]+)|data: (?P<data>[\x20-\x7e]*)|"
)


class Came(NamedTuple):
    """An event."""

    id: str
    type: str
    data: str

    @property
    def place(self) -> int:
        """Its place in the log."""
        return int(self.id.rpartition("-")[2])


class End(NamedTuple):
    """How a stream ended."""

    #: As :meth:`Answer.end` says, or ``"reset"``.
    how: str
    #: The reconnection time that was its very last line, if one was.
    retry: int | None
    #: Whether the answer that ended had the chunked coding. The client's ``answer`` may be its next one by now.
    chunked: bool

    @property
    def clean(self) -> bool:
        return self.how in ("last chunk", "eof") and self.retry is not None


class Leaving(NamedTuple):
    """When a client leaves for good, and how."""

    #: ``"connected"``, ``"half asked"``, ``"asked"``, ``"answered"`` or ``"served"``, with an event.
    stage: str
    #: So many seconds after that.
    after: float = 0.0
    #: As :meth:`Member.leave` takes it.
    how: str = "fin"


class Client(Member):
    """Follows a stream, and comes back to it when it ends, with the last id, as a browser does.

    :param path: the stream's.
    :param since: the id to begin after.
    :param returns: whether it comes back.
    :param leaving: when it leaves by itself.
    :param pace: bytes that it reads in 20 ms at most.
    :param chatter: what it says when it has been answered, although nobody listens.
    """

    def __init__(
        self,
        crowd: Crowd,
        number: int,
        path: str,
        *,
        since: str = "",
        returns: bool = True,
        leaving: Leaving | None = None,
        receive_buffer: int | None = None,
        pace: int | None = None,
        version: str = "1.1",
        chatter: bytes = b"",
    ) -> None:
        super().__init__(crowd)
        self.number = number
        self.path = path
        self.since = since
        self.returns = returns
        self.leaving = leaving
        self.receive_buffer = receive_buffer
        self.pace = pace
        self.version = version
        self.chatter = chatter
        #: What came, over all connections.
        self.events: list[Came] = []
        self.comments = 0
        #: The worker behind each stream.
        self.workers: list[int] = []
        #: The end of each.
        self.ends: list[End] = []
        #: Statuses other than 200.
        self.refusals: list[int] = []
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._rest = b""
        self._id, self._type, self._data = "", "", ""
        self._retry: int | None = None

    def __repr__(self) -> str:
        return f"client {self.number}, {self.state}, after {self.events[-1:]}, ends: {self.ends}"

    @property
    def following(self) -> bool:
        """Whether its stream has begun."""
        return self.state == "answered" and self.answer.status == 200

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events]

    def bite(self) -> int:
        if self.pace is None:
            return 65536
        self.pause()
        self.crowd.later(0.02, self.go_on)
        return self.pace

    def connected(self) -> None:
        stage = self.leaving.stage if self.leaving is not None else ""
        lines = [f"GET {self.path} HTTP/{self.version}", "Host: localhost", "Accept: text/event-stream"]
        if self.since:
            lines.append(f"Last-Event-ID: {self.since}")
        request = "\r\n".join([*lines, "", ""]).encode()
        if stage != "connected":
            # Within a header: what is cut in its first line is taken for HTTP/0.9 by some.
            self.send(request[:-10] if stage == "half asked" else request)
        if stage in ("connected", "half asked", "asked"):
            self._leave()

    def _leave(self) -> None:
        assert self.leaving is not None
        socket, how = self.socket, self.leaving.how
        self.returns = False

        def leave() -> None:
            if self.socket is socket:
                self.leave(how)

        if self.leaving.after:
            self.crowd.later(self.leaving.after, leave)
        else:
            leave()

    def answered(self) -> None:
        if self.answer.status != 200:
            self.refusals.append(self.answer.status)
            return
        assert self.answer.headers["content-type"].startswith("text/event-stream"), self.answer.headers
        self.workers.append(int(self.answer.headers["x-worker"]))
        self._begin_stream()
        if self.chatter:
            self.send(self.chatter)
        if self.leaving is not None and self.leaving.stage == "answered":
            self._leave()

    def came(self, body: bytes) -> None:
        if body and self.answer.status == 200:
            *lines, self._rest = (self._rest + body).split(b"\n")
            for line in lines:
                self._take(line)
        if self.answer.complete and self.answer.keeps_alive and self.socket is not None:
            # Through a proxy: it would take another request.
            self.drop()
            self.over(self.answer.end())

    def _take(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Stray(f"no line of an event stream is {line[:200]!r}")
        kind = found.lastgroup
        if kind is None:
            self._dispatch()
            return
        self._retry = int(found["retry"]) if kind == "retry" else None
        if kind == "comment":
            self.comments += 1
        elif kind != "retry":
            if getattr(self, f"_{kind}"):
                raise Stray(f"a second {kind} in the same event: {line[:200]!r}")
            setattr(self, f"_{kind}", found[kind].decode())

    def _dispatch(self) -> None:
        event = self.crowd.shared(Came(self._id, self._type, self._data))
        self._id, self._type, self._data = "", "", ""
        # "dropped" stands for events, and has no place of its own.
        if not event.data or not (event.id or event.type):
            raise Stray(f"no event of ours is {event}")
        if event.id:
            self.since = event.id
        self.events.append(event)
        if self.leaving is not None and self.leaving.stage == "served":
            self._leave()

    def over(self, how: str) -> None:
        if self.answer.status == 200:
            if how != "reset" and how != "cut" and (self._rest or self._id or self._type or self._data):
                raise AssertionError(f"{self!r}: ended with half an event")
            self.ends.append(End(how, self._retry, self.answer.chunked))
        if self.returns:
            self.crowd.later(self.crowd.dice.uniform(0.02, 0.3), self.come)


class Caller(Member):
    """Asks for ordinary answers, one after the other, on the same connection as long as the server keeps it.

    :param requests: paths, and what is called with the body of each answer.
    """

    def __init__(self, crowd: Crowd, requests: Iterator[tuple[str, Callable[[bytes], object]]]) -> None:
        super().__init__(crowd)
        self._requests = requests
        self._path = ""
        self._check: Callable[[bytes], object] = bytes
        self._body: list[bytes] = []
        #: Answers that were right.
        self.calls = 0
        #: Those that came on a connection which had brought one before.
        self.kept = 0
        #: Connections that ended without any answer, and may: the server stopped.
        self.unanswered = 0
        self._first_on_connection = True
        self.stopping = False

    def __repr__(self) -> str:
        return f"the caller of {self._path}"

    def connected(self) -> None:
        self._first_on_connection = True
        self._ask(again=bool(self._path))

    def _ask(self, *, again: bool = False) -> None:
        if not again:
            following = None if self.stopping else next(self._requests, None)
            if following is None:
                self._path = ""
                self.drop()
                return
            self._path, self._check = following
        self._body = []
        self.answer = type(self.answer)()
        self.state = "asking"
        self.send(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def came(self, body: bytes) -> None:
        self._body.append(body)
        if self.answer.complete and self.answer.keeps_alive:
            self._take()
            if self.socket is not None:
                self._ask()

    def _take(self) -> None:
        assert self.answer.status == 200, (self, self.answer.status)
        self._check(b"".join(self._body))
        self.calls += 1
        self.kept += not self._first_on_connection
        self._first_on_connection = False

    def over(self, how: str) -> None:
        if how in ("length", "last chunk", "eof"):
            self._take()
            self._path = ""
        elif how == "nothing" and not self._first_on_connection:
            pass  # a kept connection may be ended between two requests
        else:
            raise AssertionError(f"{self!r}: the answer ended as {how}")
        if not self.stopping:
            self.come()
