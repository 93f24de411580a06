"""What type checkers accept, and the types that they see."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import requests
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from flask import Flask, Request
from typing_extensions import assert_type
from werkzeug.wrappers import Response

import ssesync_django
import ssesync_flask
from ssesync import (
    Broker,
    CloseReason,
    Event,
    EventSource,
    EventStream,
    Reader,
    ReceivedEvent,
    Relay,
    Settings,
    StreamStats,
    Subscription,
    Writer,
    open_broker,
    relay_request,
)
from ssesync.testing import open_stream
from ssesync.wire import Decoder, encode

URL = "https://upstream.example/events"
app = Flask(__name__)
sse = ssesync_flask.SSE(app, keep_alive=5, cors_origins=["https://app.example"])


# Reading


def read(response: requests.Response) -> None:
    for event in Reader(response, until="[DONE]", idle_timeout=5):
        assert_type(event, ReceivedEvent)
        json.loads(event.data)
        print(event.type.upper(), event.id.partition("-"))
    first = Reader(response).read()
    if first is not None:
        json.loads(first.data)
    Reader(response).for_each(lambda event: print(event.data.upper()))
    for item in Reader(response).events_and_comments():
        assert_type(item.data, str | None)


def follow(token: Callable[[], dict[str, str]]) -> None:
    def should_retry(error: Exception) -> bool | None:
        return None

    with EventSource(
        URL, headers=token, verify=False, should_retry=should_retry, until=lambda e: e.data == "x"
    ) as source:
        for event in source:
            json.loads(event.data)
            source.ack(event)


def decode(data: bytes) -> list[str]:
    decoder: Decoder = Decoder()
    assert_type(Decoder(comments=True).feed(data), list[Event])
    return [event.data for event in decoder.feed(data)]


def test_view() -> None:
    with open_stream(app, "/clock") as stream:
        json.loads(stream.next().data)
        assert_type(stream.take(2), list[ReceivedEvent])
        assert stream.rest() == [Event("a", type="message"), ReceivedEvent("b")]


def pass_on(event: ReceivedEvent) -> Event:
    encode(event)
    return dataclasses.replace(event, data=event.data.upper())


# Serving


def ended(reason: CloseReason, stats: StreamStats) -> None:
    print(reason, stats.events)


def items() -> Iterator[Event]:
    yield Event("a", type="tick", id=1)


def write(writer: Writer) -> None:
    writer.write_event({"a": 1}, type="tick", id="1")


stream = EventStream(items, keep_alive=5, on_close=ended, first_event_timeout="auto", headers={"X-A": "b"})
EventStream.from_writer(write, retry=3000, refusal="503", name="job")
Settings().replace(detach=False, drain="finish")
Settings.from_mapping({"KEEP_ALIVE": 5})
EventStream(Relay(relay_request({}, URL, timeout=5, auth=("a", "b")), transform=pass_on), padding=2048)


def use(broker: Broker) -> None:
    def key_of(event: ReceivedEvent) -> str:
        return event.data[:1]

    broker.publish("a", {"b": 1}, type="tick")
    subscription = broker.subscribe("a", overflow="coalesce", coalesce=key_of, max_pending_events=10)
    assert_type(subscription, Subscription)
    assert_type(subscription.get(0), ReceivedEvent | None)
    run = broker.start_run("answer:1", items, max_seconds=60, end_type="finished")
    run.follow("1", overflow="drop_oldest")


use(open_broker("sqlite:///events.db", max_events=10, linger=0.01))


# Flask


@app.get("/clock/<int:hour>")
@ssesync_flask.event_stream
def clock(hour: int) -> Iterator[Event]:
    yield Event(str(hour))


@ssesync_flask.event_stream(keep_alive=5, key="a", headers=[("X-A", "b")])
def clock_with_options(hour: int, *, zone: str = "UTC") -> Iterator[Any]:
    yield {"hour": hour, "zone": zone}


@ssesync_flask.event_writer(on_close=ended)
def job(writer: Writer, job_id: int) -> None:
    writer.write_event(str(job_id))


assert_type(clock(5), Response)
assert_type(clock_with_options(hour=5, zone="CET"), Response)
assert_type(job(7), Response)


def may_read(request: Request, channel: str) -> bool:
    return True


@app.get("/room")
def room() -> Response:
    return sse.subscribe("room", authorize=may_read, keep_alive=5, overflow="drop_oldest", dropped_event="gap", last=3)


@app.post("/answer")
def answer() -> Response:
    sse.start_run("answer:2", items, subject="a", retain=60, restart=True)
    sse.follow_run("answer:2", subject="a", keep_alive=5, patience=3)
    return sse.run("answer:2", items, subject="a", merge=0.1, keep_alive=5, reset_event="again")


# Django


@ssesync_django.event_stream
def ticks(request: HttpRequest, room: str) -> Iterator[Event]:
    yield Event(room)


@ssesync_django.event_writer(keep_alive=5)
def progress(request: HttpRequest, writer: Writer, job_id: int) -> None:
    writer.write("x")


class Ticks:
    @ssesync_django.event_stream(retry=1000)
    def get(self, request: HttpRequest) -> Iterator[Event]:
        yield Event("a")

    @ssesync_django.event_writer
    def post(self, request: HttpRequest, writer: Writer, number: int) -> None:
        writer.write(str(number))


def streams(request: HttpRequest) -> HttpResponseBase:
    assert_type(ticks(request, "lobby"), HttpResponseBase)
    assert_type(progress(request, job_id=7), HttpResponseBase)
    assert_type(Ticks().get(request), HttpResponseBase)
    assert_type(Ticks().post(request, 5), HttpResponseBase)
    ssesync_django.run(request, "answer:3", items, subject=request.user, max_events=10, keep_alive=5)
    ssesync_django.publish("a", {"b": 1}, type="tick")
    return ssesync_django.subscribe(request, "room", keep_alive=5, overflow="disconnect", patience=0, headers={})


urlpatterns = [path("ticks/<room>", ticks), path("job/<int:job_id>", progress), path("room", streams)]
