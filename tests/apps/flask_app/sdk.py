"""What clients of others read: OpenAI's chat completions and responses, Anthropic's messages, AG-UI's events and plain
ones, of made-up words; runs; and odd data.

The model's name says how an answer goes on after three words (:func:`words`); ``options`` of the stream are in the
header ``X-Options``, as JSON.

Environment: BROKER, the URL of the runs' broker; GATE, a file that answers of the model ``gated`` wait for.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
from flask import Blueprint, request

from ssesync import CloseReason, Event, StreamStats
from ssesync_flask import SSE, EventStreamResponse
from tests.apps import process
from tests.sdk import odd

from . import agents, create_app

#: Seconds between two words.
PACE = 0.02
SECRET = "the password is sesame"

blueprint = Blueprint("sdk", __name__)
sse = SSE(broker=os.environ.get("BROKER", "memory://"))
closed: list[str] = []
lock = threading.Lock()


def keep(reason: CloseReason, stats: StreamStats) -> None:
    with lock:
        closed.append(reason.value)


def words(model: str, count: int) -> Iterator[str]:
    """Yield the words of an answer.

    :param model: ``fail`` raises after three words, ``gated`` waits there for the gate, ``endless`` goes on slowly;
        ``odd`` has texts that are no words. Others go on to the end.
    """
    for number in range(count):
        if number >= 3 and model != "m":
            go_on(model)
        yield odd.TEXTS[number] if model == "odd" else f"word{number} "
        time.sleep(PACE)


def go_on(model: str) -> None:
    if model == "fail":
        raise RuntimeError(SECRET)
    if model == "gated":
        while not Path(os.environ["GATE"]).exists():
            time.sleep(0.1)
    if model == "endless":
        time.sleep(0.25)


def answer(make: Callable[[Iterator[str]], Iterator[Any]], count: int) -> flask.Response:
    given = words(request.get_json()["model"], count)
    options = json.loads(request.headers.get("X-Options", "{}"))
    if "error_event" in options:
        options["error_event"] = Event.from_json(options["error_event"])
    return EventStreamResponse(lambda: make(given), on_close=keep, **options)


@blueprint.post("/v1/chat/completions")
def chat() -> flask.Response:
    def chunk(delta: dict[str, str], end: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    def make(given: Iterator[str]) -> Iterator[Any]:
        yield chunk({"role": "assistant", "content": ""})
        for word in given:
            yield chunk({"content": word})
        yield chunk({}, "stop")
        yield "[DONE]"

    return answer(make, request.get_json()["max_tokens"])


@blueprint.post("/v1/responses")
def responses() -> flask.Response:
    def make(given: Iterator[str]) -> Iterator[Any]:
        place = {"item_id": "i", "output_index": 0, "content_index": 0}
        for number, word in enumerate(given):
            delta = {"type": "response.output_text.delta", "sequence_number": number, "delta": word, "logprobs": []}
            yield Event.from_json({**delta, **place}, type="response.output_text.delta")

    return answer(make, request.get_json()["max_output_tokens"])


@blueprint.post("/v1/messages")
def messages() -> flask.Response:
    def named(type: str, **fields: Any) -> Event:
        return Event.from_json({"type": type, **fields}, type=type)

    def make(given: Iterator[str]) -> Iterator[Any]:
        message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None}
        yield named("message_start", message={**message, "usage": {"input_tokens": 1, "output_tokens": 1}})
        yield named("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for word in given:
            yield named("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        yield named("content_block_stop", index=0)
        yield named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1})
        yield named("message_stop")

    return answer(make, request.get_json()["max_tokens"])


@blueprint.post("/answers")
def plain_words() -> flask.Response:
    """As plain events."""
    return answer(iter, request.get_json()["count"])


@blueprint.get("/runs/<name>")
def follow(name: str) -> flask.Response:
    """A run that the test produces."""
    return sse.follow_run(name, authorize=lambda run: True)


@blueprint.route("/odd", methods=["GET", "POST"])
def odd_events() -> flask.Response:
    """What the library sends, until the client leaves."""
    return EventStreamResponse(lambda: odd.events(), keep_alive=0.2)


@blueprint.route("/foreign", methods=["GET", "POST"])
def foreign_events() -> flask.Response:
    """What other servers may send: bytes that are not of the library, each item a chunk."""
    return flask.Response(odd.chunks(), mimetype="text/event-stream")


@blueprint.get("/closed")
def closed_streams() -> list[str]:
    with lock:
        return list(closed)


process.log_to_stderr()
application = create_app(blueprint, agents.blueprint)
sse.init_app(application)
