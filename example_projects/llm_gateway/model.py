"""A stand-in for a model server: OpenAI's chat completions and Anthropic's messages, with a fixed text and no model.

The model named "broken" fails after three tokens.

Environment: MODEL_PACE, tokens a second (15), and MODEL_KEY, the API key that it requires ("local").
"""

import itertools
import os
import re
import threading
import time
import uuid

from flask import Flask, request

from ssesync import Event
from ssesync_flask import EventStreamResponse, event_writer

TEXT = """\
Each token appears on your screen right after it was made: it passed through two gateways, each of which sent it on at \
once. No part of the chain waits for the rest of the answer.

Now press Stop. The browser only closes its connection. The first gateway detects this at once, without a write, and \
closes its own connection to the second; the second does the same to the model. A few milliseconds later the model \
stops making tokens.

That matters because tokens cost money. A gateway that detects a disconnect only when a write fails keeps paying in \
the meantime, and a slow model can be silent for a long time. Watch the two figures above: the tokens that were \
requested, and those that were made.
"""


class Counters:
    """The numbers of tokens requested and produced, of requests, and of unfinished answers."""

    def __init__(self):
        self._lock = threading.Lock()
        self._values = {"requests": 0, "asked": 0, "produced": 0, "running": 0}

    def add(self, **numbers):
        with self._lock:
            for name, number in numbers.items():
                self._values[name] += number

    def read(self):
        with self._lock:
            return dict(self._values)


def create_app():
    app = Flask(__name__)
    # The answers of this stand-in need not be completed: a stop does not wait for them.
    app.config["SSESYNC"] = {"drain": "end"}
    pause = 1 / float(os.environ.get("MODEL_PACE", "15"))
    key = os.environ.get("MODEL_KEY", "local")
    counters = Counters()

    def produce(model, count):
        """The tokens, at the model's pace. A disconnect closes this generator at its yield."""
        counters.add(requests=1, asked=count, running=1)
        try:
            for number, token in enumerate(itertools.islice(tokens(), count)):
                if model == "broken" and number == 3:
                    raise RuntimeError("this model is broken")
                time.sleep(pause)
                counters.add(produced=1)
                yield token
        finally:
            counters.add(running=-1)

    def check(asked):
        """The number of tokens to make, or the answer to a wrong request."""
        if f"Bearer {key}" != request.headers.get("Authorization") and key != request.headers.get("X-Api-Key"):
            return failure(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")
        count = asked.get("max_completion_tokens") or asked.get("max_tokens") or 200
        if not asked.get("messages") or not isinstance(count, int) or count < 0:
            return failure(400, "messages is required, and max_tokens is a number.", "invalid_request_error")
        return count

    @app.post("/v1/chat/completions")
    def chat_completions():
        asked = request.get_json(silent=True) or {}
        count, model = check(asked), asked.get("model", "")
        if not isinstance(count, int):
            return count
        answer = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(produce(model, count))}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            return {**answer, "object": "chat.completion", "choices": [choice]}

        def chunk(delta, finish_reason=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            return {**answer, "object": "chat.completion.chunk", "choices": [choice]}

        def stream():
            yield chunk({"role": "assistant", "content": ""})
            for token in produce(model, count):
                yield chunk({"content": token})
            yield chunk({}, "length")
            yield "[DONE]"

        return EventStreamResponse(stream)

    @app.post("/v1/messages")
    def messages():
        asked = request.get_json(silent=True) or {}
        count, model = check(asked), asked.get("model", "")
        if not isinstance(count, int):
            return count
        message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model}
        usage = {"input_tokens": 1, "output_tokens": count}
        if not asked.get("stream"):
            content = [{"type": "text", "text": "".join(produce(model, count))}]
            return {**message, "content": content, "stop_reason": "max_tokens", "usage": usage}

        def event(type, **fields):
            return Event.from_json({"type": type, **fields}, type=type)

        def stream():
            yield event("message_start", message={**message, "content": [], "stop_reason": None, "usage": usage})
            yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for token in produce(model, count):
                yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": token})
            yield event("content_block_stop", index=0)
            yield event("message_delta", delta={"stop_reason": "max_tokens"}, usage=usage)
            yield event("message_stop")

        return EventStreamResponse(stream)

    @app.get("/counters")
    def counters_now():
        return counters.read()

    @app.get("/counters/live")
    @event_writer
    def counters_live(w):
        sent = {}
        while not w.cancelled.wait(0.1):
            now = counters.read()
            if now != sent:
                sent = now
                w.write_event(now)

    return app


def tokens():
    """An endless iterator of words, each with the space before it."""
    return itertools.chain.from_iterable(re.findall(r"\s*\S+", text) for text in itertools.repeat("\n\n" + TEXT))


def failure(status, message, kind, code=None):
    """An error in the form that the clients of both expect."""
    return {"type": "error", "error": {"message": message, "type": kind, "param": None, "code": code}}, status
