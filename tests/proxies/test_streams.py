"""What each proxy does with streams, with the settings of docs/guide/proxies.md and with its defaults.

No test compares times: an event is published when the one before has arrived, and a stream that ends is compared with
one that has been silent for longer. Only HAProxy's delay is measured, which no busy machine makes shorter.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.http_client import Response
from tests.live.detached.kinds import Server
from tests.servers import Wire, eventually

from .fronts import KINDS, PATIENCE, Front
from .http2 import Http2

OPENING = b":ok\n"
NUMBERS = itertools.count()
FRONTS = ["nginx", "haproxy", "apache", "varnish", "caddy"]
#: Each proxy with the versions of HTTP that it speaks to a client.
WAYS = [(name, version) for name in FRONTS for version in ("1.1", "2") if version == "1.1" or KINDS[name].http2]
#: Those that pass on at once that a client has left.
PROMPT = [(name, version) for name, version in WAYS if name != "apache"]
#: Those that pass on that an answer breaks off. The others, in these versions, end theirs as if it were complete.
HONEST = [way for way in WAYS if way not in (("haproxy", "2"), ("caddy", "1.1"), ("caddy", "2"))]


class Stream:
    """A subscription through a proxy, from its opening on."""

    def __init__(self, server: Server, client: Wire | Http2, accept: str = "text/event-stream", **options: Any) -> None:
        self._server, self._client = server, client
        self.name = f"s{next(NUMBERS)}"
        options = {"max_streams": None, "keep_alive": 60, **options}
        target = f"/flask/events/{self.name}?{urlencode({'options': json.dumps(options)})}"
        self.answer: Response | Http2 = client.get(target, Accept=accept, Accept_Encoding="gzip")
        assert self.answer.status == 200
        assert self.answer.find(OPENING) == b""

    def publish(self, data: str) -> None:
        self._server.ask("publish", place="flask", channel=self.name, data=[data])

    def delivers(self, data: str) -> None:
        self.publish(data)
        self.answer.find(f"data: {data}\n\n".encode())

    def publish_until_closed(self) -> None:
        def is_closed() -> bool:
            self.publish("next")
            return self.end is not None

        assert eventually(is_closed)

    def leave(self) -> None:
        self._client.close()

    def stop(self) -> None:
        """Leave, and end it at the server too: not every proxy passes on that its client has left."""
        self._client.close()
        self._server.ask("revoke", place="flask", key=self.name)

    @property
    def tier(self) -> str:
        [tier] = [each["tier"] for each in self._server.state()["streams"]]
        return str(tier)

    @property
    def end(self) -> str | None:
        """Why the server has closed it; ``None`` while it is open."""
        calls = self._server.facts(self.name).get("on_close", [])
        return calls[0][0] if calls else None


Open = Callable[..., Stream]


@pytest.fixture
def open_stream(server: Server, front_of: Callable[[str], Front]) -> Iterator[Open]:
    """Opens streams, which are left when the test is over."""
    with contextlib.ExitStack() as stack:

        def give(name: str, version: str = "1.1", *, plain: bool = False, **options: Any) -> Stream:
            front = front_of(name)
            client = front.connect_http2() if version == "2" else front.connect(plain=plain)
            stack.callback(client.close)
            stream = Stream(server, client, **options)
            stack.callback(stream.stop)
            return stream

        yield give


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "served"])
@pytest.mark.parametrize(("name", "version"), WAYS)
def test_each_event_arrives_before_the_next_and_the_stream_takes_no_thread(
    open_stream: Open, name: str, version: str, detach: bool
) -> None:
    stream = open_stream(name, version, detach=detach)
    # They compress event streams here, and this one says that it is not to be.
    coding = stream.answer.header("content-encoding")
    assert coding == "identity"
    for number in range(5):
        stream.delivers(f"number {number}")
    stream.delivers("x" * 200_000)
    assert stream.tier == ("detached" if detach else "served")
    stream.leave()
    # Apache finds that by writing.
    stream.publish_until_closed()
    assert stream.end == "client_gone"


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "served"])
@pytest.mark.parametrize(("name", "version"), PROMPT)
def test_a_client_that_leaves_is_seen_without_a_write(open_stream: Open, name: str, version: str, detach: bool) -> None:
    # A proxy that gave up silence would end the older one first.
    older = open_stream(name, version, detach=detach)
    stream = open_stream(name, version, detach=detach)
    stream.leave()
    assert eventually(lambda: stream.end)
    assert (stream.end, older.end) == ("client_gone", None)


@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy"])
def test_a_page_that_closes_its_stream_is_seen_while_its_connection_stays(open_stream: Open, name: str) -> None:
    stream = open_stream(name, "2")
    assert isinstance(stream.answer, Http2)
    stream.answer.reset()
    assert eventually(lambda: stream.end)
    assert stream.end == "client_gone"


@pytest.mark.parametrize(("name", "version"), HONEST)
def test_an_answer_that_breaks_off_is_incomplete_to_the_client(
    server: Server, open_stream: Open, name: str, version: str
) -> None:
    stream = open_stream(name, version, resumable=False)
    server.ask("revoke", place="flask", key=stream.name)
    # A reset may overtake the error event.
    with contextlib.suppress(EOFError, ConnectionResetError):
        stream.answer.read()
    assert stream.answer.end in (None, "reset")


# Anything else than the page's rule for Varnish leads to its defaults.
@pytest.mark.parametrize(("name", "options"), [("haproxy by default", {}), ("varnish", {"accept": "*/*"})])
def test_by_default_a_client_that_leaves_is_seen_at_a_write(
    open_stream: Open, name: str, options: dict[str, Any]
) -> None:
    stream = open_stream(name, **options)
    stream.delivers("first")
    stream.leave()
    other = open_stream("nginx")
    other.leave()
    assert eventually(lambda: other.end)
    assert stream.end is None
    stream.publish_until_closed()


def delay(stream: Stream) -> float:
    """Seconds from publishing an event until it is read."""
    started = time.monotonic()
    stream.delivers("event")
    return time.monotonic() - started


def test_haproxy_delays_each_event_until_it_is_told_not_to(open_stream: Open) -> None:
    """A system that has more to do makes the first four later, and does not have one of the others arrive late."""
    stream = open_stream("haproxy by default")
    assert min(delay(stream) for _ in range(4)) > 0.15
    stream = open_stream("haproxy", plain=True)
    assert any(delay(stream) < 0.15 for _ in range(100))


def test_keep_alives_carry_a_silent_stream_past_the_timeouts_of_all_proxies(open_stream: Open) -> None:
    kept = {way: open_stream(*way, keep_alive=0.5) for way in WAYS}
    silent = {way: open_stream(*way, keep_alive=60) for way in WAYS if KINDS[way[0]].impatient}
    for stream in silent.values():
        with contextlib.suppress(EOFError, ConnectionResetError):
            stream.answer.read()
    for stream in kept.values():
        for _ in range(2 * PATIENCE):
            stream.answer.find(b":keep-alive\n")
        stream.delivers("still here")
    assert all(stream.end is None for stream in kept.values())
