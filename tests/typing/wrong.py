"""Mistakes that type checkers find: each marked line is one. A mark that is not needed is an error itself."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import json
from collections.abc import Iterator

from django.http import HttpRequest
from flask import Flask

import ssesync_django
import ssesync_flask
from ssesync import Broker, Event, EventSource, EventStream, Reader, Relay, Settings, Writer, relay_request

app = Flask(__name__)
sse = ssesync_flask.SSE(app, keepalive=5)  # type: ignore[call-arg]


def items() -> Iterator[Event]:
    yield Event("a", event="tick")  # type: ignore[arg-type]


def write(writer: Writer) -> None:
    writer.write_event("a", event="tick")  # type: ignore[arg-type]


def read(response: object, event: Event, broker: Broker) -> None:
    json.loads(event.data)  # type: ignore[arg-type]
    for comment_or_event in Reader(response).events_and_comments():
        json.loads(comment_or_event.data)  # type: ignore[arg-type]
    Reader(response, idle_timout=5)  # type: ignore[arg-type]
    EventSource("https://upstream.example", reconect=True)  # type: ignore[call-arg]
    EventSource("https://upstream.example", commit="later")  # type: ignore[arg-type]
    EventStream(Relay(response, max_bodi=5))  # type: ignore[arg-type]
    relay_request({}, "https://upstream.example", time_out=5)  # type: ignore[call-arg]
    EventStream(items, keepalive=5)  # type: ignore[call-arg]
    EventStream(items, keep_alive="5")  # type: ignore[arg-type]
    EventStream.from_writer(write, on_closed=print)  # type: ignore[call-arg]
    Settings().replace(refusal=503)  # type: ignore[arg-type]
    broker.subscribe("a", overflow="dropp")  # type: ignore[arg-type]
    broker.subscribe("a", overflw="drop_oldest")  # type: ignore[call-arg]
    broker.start_run("a", items, max_second=5)  # type: ignore[call-arg]


@ssesync_flask.event_stream(keepalive=5)  # type: ignore[call-overload, untyped-decorator]
def clock(hour: int) -> Iterator[Event]:
    yield Event(str(hour))


@ssesync_flask.event_stream
def zone(hour: int) -> Iterator[Event]:
    yield Event(str(hour))


@ssesync_django.event_stream
def ticks(request: HttpRequest, room: str) -> Iterator[Event]:
    yield Event(room)


def flask_view() -> None:
    zone("5")  # type: ignore[arg-type]
    sse.subscribe("a", overflow="dropp")  # type: ignore[arg-type]
    sse.subscribe("a", keepalive=5)  # type: ignore[call-arg]
    sse.run("a", items, subject="b", max_byte=5)  # type: ignore[call-arg]
    sse.follow_run("a", subject="b", key_alive=5)  # type: ignore[call-arg]


def django_view(request: HttpRequest) -> None:
    ticks(request)  # type: ignore[call-arg]
    ssesync_django.subscribe(request, "a", overflow="dropp")  # type: ignore[arg-type]
    ssesync_django.subscribe(request, "a", keepalive=5)  # type: ignore[call-arg]
    ssesync_django.EventStreamResponse(items, keepalive=5)  # type: ignore[call-arg]
    ssesync_django.start_run(request, "a", items, retane=5)  # type: ignore[call-arg]
