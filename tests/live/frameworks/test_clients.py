"""Clients of other makes read from every server what our own Reader does, as it is produced."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx_sse
import pytest
import requests

from ssesync import Event, Reader
from ssesync.wire import Decoder
from tests.http_client import TIMEOUT

from .kinds import Target
from .switchboard import Switchboard

#: The last field is what clients say of the event: its type, its data, the last event ID.
EVENTS: list[dict[str, Any]] = [
    {"data": "plain"},
    {"data": "two\nlines", "type": "note"},
    {"data": " a leading space, a colon: and ü, 漢, 🎈", "id": "1"},
    {"data": "keeps the id", "comment": "a comment\nof two lines"},
    {"data": '{"json": [1, null]}', "type": "json", "id": "ü", "retry": 3000},
    {"data": ""},
    {"data": "a line end at the end\n"},
    {"data": "next\u2028line\x85, form\ffeed"},
    {"data": "x" * 100_000, "id": 7},
]
EXPECTED = [
    ("message", "plain", ""),
    ("note", "two\nlines", ""),
    ("message", " a leading space, a colon: and ü, 漢, 🎈", "1"),
    ("message", "keeps the id", "1"),
    ("json", '{"json": [1, null]}', "ü"),
    ("message", "", "ü"),
    ("message", "a line end at the end\n", "ü"),
    ("message", "next\u2028line\x85, form\ffeed", "ü"),
    ("message", "x" * 100_000, "7"),
]

Seen = tuple[str, str, str]
#: Opens a URL and gives the events as they come.
Client = Callable[[str], "contextlib.AbstractContextManager[Iterator[Seen]]"]


def seen(event: Event) -> Seen:
    return event.type or "message", event.data or "", event.id or ""


@contextlib.contextmanager
def reader(url: str) -> Iterator[Iterator[Seen]]:
    with (
        requests.Session() as session,
        session.get(url, stream=True, timeout=TIMEOUT) as response,
        Reader(response) as events,
    ):
        yield map(seen, events)


@contextlib.contextmanager
def curl(url: str) -> Iterator[Iterator[Seen]]:
    command = ["curl", "--no-buffer", "--silent", "--show-error", "--fail", "--max-time", "30", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None

        def events(descriptor: int) -> Iterator[Seen]:
            decoder = Decoder()
            while data := os.read(descriptor, 65536):
                yield from map(seen, decoder.feed(data))

        try:
            yield events(process.stdout.fileno())
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


@contextlib.contextmanager
def foreign(url: str) -> Iterator[Iterator[Seen]]:
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        yield ((event.event, event.data, event.id) for event in source.iter_sse())


@pytest.mark.parametrize("client", [reader, curl, foreign])
def test_every_client_reads_the_same_events_as_they_are_produced(
    target: Target, switchboard: Switchboard, client: Client
) -> None:
    with client(target.url("gate", line=switchboard.port)) as events:
        producer = switchboard.producer()
        for event, expected in zip(EVENTS, EXPECTED, strict=True):
            producer.send(**event)
            assert next(events) == expected
        producer.end()
        assert list(events) == []
