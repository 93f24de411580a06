"""The contestants, each used as its own client uses it.

Decoders. All take the same list of ``bytes`` and are drained event by event; where a library decodes text, turning
the bytes into text is part of its work, as it is in its client.

ssesync
    ``Decoder.feed`` for every chunk, inside a generator, since all the others hand events out one by one.
httpx-sse
    Its line decoder and its event decoder, joined as ``EventSource.iter_sse`` joins them, over the incremental UTF-8
    decoder that ``httpx.Response.iter_text`` wraps. httpx's own layers about that are left out: in its favour.
sseclient-py
    ``SSEClient(chunks).events()``, which takes any iterable of bytes.
requests-sse
    Has no decoder apart from its client: its ``EventSource`` over ``requests.Response.iter_lines``, as it makes one
    itself, over a body that gives the chunks whole. (From a connection, ``iter_lines`` asks for 512 bytes at a time;
    not held against it here, but it counts in benchmarks.reader.)
launchdarkly-eventsource
    Its line reader and its event reader, joined as ``SSEClient`` joins them.
openai
    ``SSEDecoder().iter_bytes(chunks)``, without the JSON decoding and the models that follow.

Encoders. All make an event object and then its bytes, as a view does for every event.

Readers. All make a request of their own, follow the stream to its end, and close.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ssesync import Event, Reader
from ssesync.wire import Decoder, encode

OURS = "ssesync"
#: The distributions that the contestants come from, for the line of versions.
DISTRIBUTIONS = [
    "httpx-sse",
    "httpx",
    "sseclient-py",
    "requests-sse",
    "requests",
    "urllib3",
    "launchdarkly-eventsource",
    "openai",
    "sse-starlette",
    "flask-sse",
]

Chunks = Iterable[bytes]


@dataclass(frozen=True)
class Client:
    """Something that gives events, and how to read (data, type, last event ID) off one; None: it does not tell."""

    events: Callable[[Any], Iterable[Any]]
    fields: Callable[[Any], tuple[str, str | None, str | None]]


#: Where a peer is known to give something else than the stream says: (peer, what it gets wrong) and why. Checked in
#: both directions where the inputs show it; data is never excused.
DEVIATIONS = {
    ("requests-sse", "type"): "a CR LF that a chunk boundary cuts reads as two line ends, and the type is forgotten",
}


def decoders() -> dict[str, Client]:
    """Ours and those of the peers that are installed."""
    return {OURS: Client(_ours, _event_fields), **_installed(_httpx_sse, _sseclient, _requests_sse, _ld, _openai)}


def encoders() -> dict[str, Callable[[str, str | None, str | None], bytes]]:
    """From (data, type, id) to bytes."""

    def ours(data: str, type: str | None, id: str | None) -> bytes:
        return encode(Event(data, type=type, id=id))

    return {OURS: ours, **_installed(_sse_starlette, _flask_sse)}


def readers() -> dict[str, Client]:
    """From a URL to events."""
    return {
        OURS: Client(_our_reader, _event_fields),
        **_installed(
            _sseclient_requests, _sseclient_urllib3, _requests_sse_reader, _ld_reader, _httpx_sse_reader, _openai_reader
        ),
    }


def check(name: str, got: list[tuple[str, str | None, str | None]], expected: list[tuple[str, str, str]]) -> None:
    """Raise unless a contestant gave what the stream holds, so that nothing is timed that does something else."""
    if len(got) != len(expected):
        raise AssertionError(f"{name} gave {len(got)} events instead of {len(expected)}")
    for number, (has, wants) in enumerate(zip(got, expected, strict=True)):
        for field, value, wanted in zip(("data", "type", "id"), has, wants, strict=True):
            if value is not None and value != wanted and (name, field) not in DEVIATIONS:
                raise AssertionError(f"{name}, event {number}: {field} is {value[:80]!r} instead of {wanted[:80]!r}")


def _installed(*makers: Callable[[], tuple[str, Any]]) -> dict[str, Any]:
    found = {}
    for make in makers:
        try:
            name, contestant = make()
        except ImportError:
            continue
        found[name] = contestant
    return found


def _event_fields(event: Any) -> tuple[str, str, str]:
    return event.data, event.type, event.id or ""


def _ours(chunks: Chunks) -> Iterator[Event]:
    decoder = Decoder()
    for chunk in chunks:
        yield from decoder.feed(chunk)


def _peer_fields(event: Any) -> tuple[str, str, str]:
    return event.data, event.event or "message", event.id or ""


def _httpx_sse() -> tuple[str, Client]:
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    def events(chunks: Chunks) -> Iterator[Any]:
        text = codecs.getincrementaldecoder("utf-8")("replace")
        lines = SSELineDecoder()
        decoder = SSEDecoder()
        for chunk in chunks:
            for line in lines.decode(text.decode(chunk)):
                event = decoder.decode(line.rstrip("\n"))
                if event is not None:
                    yield event

    return "httpx-sse", Client(events, _peer_fields)


def _sseclient() -> tuple[str, Client]:
    from sseclient import SSEClient

    return "sseclient-py", Client(lambda chunks: SSEClient(chunks).events(), _peer_fields)


def _requests_sse() -> tuple[str, Client]:
    import requests
    from requests_sse import EventSource

    class Raw:
        def __init__(self, chunks: Chunks) -> None:
            self.chunks = chunks

        def stream(self, amt: int, decode_content: bool) -> Iterator[bytes]:
            yield from self.chunks

    class Once(EventSource):
        def connect(self, retry: int = 0) -> None:
            if self._response is not None:
                raise StopIteration  # it would reconnect for ever
            self._response = requests.Response()
            self._response.status_code = 200
            self._response.raw = Raw(self._chunks)
            self._data_generator = self._response.iter_lines()
            self._origin = "benchmark"

    def events(chunks: Chunks) -> Iterator[Any]:
        source = Once("http://benchmark.invalid/", reconnection_time=timedelta(0))
        source._chunks = chunks
        source.connect()
        return iter(source)

    return "requests-sse", Client(events, lambda event: (event.data, event.type, event.last_event_id))


def _ld_fields(event: Any) -> tuple[str, str, str]:
    return event.data, event.event, event.last_event_id or ""


def _ld() -> tuple[str, Client]:
    from ld_eventsource.reader import _BufferedLineReader, _SSEReader

    def events(chunks: Chunks) -> Iterator[Any]:
        return _SSEReader(_BufferedLineReader.lines_from(chunks)).events_and_comments()

    return "launchdarkly-eventsource", Client(events, _ld_fields)


def _openai() -> tuple[str, Client]:
    from openai._streaming import SSEDecoder

    return "openai", Client(lambda chunks: SSEDecoder().iter_bytes(iter(chunks)), _peer_fields)


def _sse_starlette() -> tuple[str, Callable[[str, str | None, str | None], bytes]]:
    from sse_starlette import ServerSentEvent

    def run(data: str, type: str | None, id: str | None) -> bytes:
        return ServerSentEvent(data, event=type, id=id).encode()

    return "sse-starlette", run


def _flask_sse() -> tuple[str, Callable[[str, str | None, str | None], bytes]]:
    from flask_sse import Message

    def run(data: str, type: str | None, id: str | None) -> bytes:
        return str(Message(data, type=type, id=id)).encode()

    return "flask-sse", run


def _our_reader(url: str) -> Iterator[Event]:
    import requests

    with requests.get(url, stream=True) as response:
        yield from Reader(response)


def _sseclient_requests() -> tuple[str, Client]:
    import requests
    from sseclient import SSEClient

    def events(url: str) -> Iterator[Any]:
        with requests.get(url, stream=True) as response:
            yield from SSEClient(response).events()

    return "sseclient-py, requests", Client(events, _peer_fields)


def _sseclient_urllib3() -> tuple[str, Client]:
    import urllib3
    from sseclient import SSEClient

    def events(url: str) -> Iterator[Any]:
        with urllib3.PoolManager() as pool:
            yield from SSEClient(pool.request("GET", url, preload_content=False)).events()

    return "sseclient-py, urllib3", Client(events, _peer_fields)


def _requests_sse_reader() -> tuple[str, Client]:
    from requests_sse import EventSource

    class Once(EventSource):
        def connect(self, retry: int = 0) -> None:
            if self._response is not None:
                raise StopIteration
            super().connect(retry)

    def events(url: str) -> Iterator[Any]:
        with Once(url, reconnection_time=timedelta(0)) as source:
            yield from source

    return "requests-sse", Client(events, lambda event: (event.data, event.type, event.last_event_id))


def _ld_reader() -> tuple[str, Client]:
    from ld_eventsource import SSEClient

    def events(url: str) -> Iterator[Any]:
        client = SSEClient(url)
        try:
            yield from client.events
        finally:
            client.close()

    return "launchdarkly-eventsource", Client(events, _ld_fields)


def _httpx_sse_reader() -> tuple[str, Client]:
    import httpx
    from httpx_sse import connect_sse

    def events(url: str) -> Iterator[Any]:
        with httpx.Client(trust_env=False) as client, connect_sse(client, "GET", url) as source:
            yield from source.iter_sse()

    return "httpx-sse", Client(events, _peer_fields)


def _openai_reader() -> tuple[str, Client]:
    import openai

    def events(url: str) -> Iterator[Any]:
        base, _, path = url.rpartition("/")
        with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client:
            stream = client.get(f"/{path}", cast_to=object, stream=True, stream_cls=openai.Stream[object])
            try:
                yield from stream._iter_events()
            finally:
                stream.close()

    return "openai", Client(events, _peer_fields)
