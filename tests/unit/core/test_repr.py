"""The repr() of public objects: the class, the address and the state, on one line and without passwords."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ssesync import CloseReason, Event, EventSource, EventStream, Reader, ReceivedEvent, Relay, Writer, open_broker
from ssesync.channels.feed import ChannelFeed

from ...cases import each_case

URL = "http://user:secret@127.0.0.1:9/events?room=1"
SHOWN = "http://user:***@127.0.0.1:9/events?room=1"


def response(url: str = URL) -> Any:
    return SimpleNamespace(
        url=url, headers={"Content-Type": "text/event-stream"}, status_code=200, iter_content=lambda size: iter(()),
        close=lambda: None,
    )  # fmt: skip


def test_an_event_shows_the_fields_that_are_set() -> None:
    assert repr(Event("a", type="t", id=1)) == "Event('a', type='t', id='1')"
    assert repr(ReceivedEvent("a")) == "ReceivedEvent('a', type='message')"


def test_streams_and_writers() -> None:
    stream = EventStream([], name="/clock\x1b")
    assert repr(stream) == r"<EventStream '/clock\x1b' created>"
    stream.close()
    assert repr(stream) == r"<EventStream '/clock\x1b' ended>"
    writer = Writer()
    assert repr(writer) == "<Writer open>"
    writer.cancel(CloseReason.CLIENT_GONE)
    assert repr(writer) == "<Writer closed (client_gone)>"


def test_readers() -> None:
    reader = Reader(response())
    assert repr(reader) == f"<Reader '{SHOWN}' open>"
    reader.close()
    assert repr(reader) == f"<Reader '{SHOWN}' closed>"
    assert repr(Reader([b""])) == "<Reader open>"
    source = EventSource(URL)
    assert repr(source) == f"<EventSource '{SHOWN}' connecting>"
    source.close()
    assert repr(source) == f"<EventSource '{SHOWN}' closed>"
    assert repr(EventSource(lambda: URL)) == "<EventSource connecting>"


def test_relays() -> None:
    relay = Relay(response())
    assert repr(relay) == f"<Relay '{SHOWN}' open>"
    relay.close()
    assert repr(relay) == f"<Relay '{SHOWN}' closed>"
    with_request = Relay.from_request({"REQUEST_METHOD": "GET"}, "http://127.0.0.1:9/?token=secret")
    assert repr(with_request) == "<Relay 'http://127.0.0.1:9/?token=***' not sent>"


def test_channels() -> None:
    with open_broker("memory://") as broker:
        assert repr(broker) == "<MemoryBroker 'memory://' open>"
        subscription = broker.subscribe("a", "b", patterns=["c:*"])
        assert repr(subscription) == "<Subscription 'a' 'b' 'c:*' open>"
        subscription.close()
        assert repr(subscription) == "<Subscription 'a' 'b' 'c:*' closed (cancelled)>"
        assert repr(ChannelFeed(broker, "a", list)) == "<ChannelFeed 'a' stopped>"
        run = broker.queue_run("answer:1")
        assert repr(run) == "<Run 'answer:1' queued>"
    assert repr(broker) == "<MemoryBroker 'memory://' closed>"


@each_case(
    "url, shown",
    [
        (
            "sqlite:////tmp/never-made.db?max_events=5",
            "<SQLiteBroker 'sqlite:////tmp/never-made.db' open>",
        ),
        ("redis://user:secret@127.0.0.1:9/1?max_events=5", "<RedisBroker 'redis://user:***@127.0.0.1:9/1' open>"),
    ],
)
def test_a_broker_shows_its_url_without_password_and_options(url: str, shown: str) -> None:
    assert repr(open_broker(url)) == shown
