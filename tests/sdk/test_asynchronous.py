"""OpenAI's asynchronous client as the producer of a stream: its models are sent, and a client that leaves ends it."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from ssesync import EventStream, from_async, json_encoder, register_encoder
from ssesync.server.stream import join_producer
from ssesync.testing import CHUNKED, HOLD, LAST_CHUNK, FakeSSEServer, chunk, head
from tests.later import ImportedLater

if TYPE_CHECKING:
    import openai
else:
    openai = ImportedLater("openai")

TIMEOUT = 90.0


def words(*texts: str) -> list[bytes]:
    choices: list[list[Any]] = [[{"index": 0, "delta": {"content": text}, "finish_reason": None}] for text in texts]
    fields = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return [chunk(b"data: %s\n\n" % json.dumps({**fields, "choices": each}).encode()) for each in choices]


def client(server: FakeSSEServer) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(trust_env=False, timeout=TIMEOUT)
    return openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0, http_client=http)


def chat(server: FakeSSEServer) -> EventStream:
    async def answer() -> AsyncIterator[Any]:
        async with client(server) as model:
            async for each in await model.chat.completions.create(model="m", messages=[], stream=True):
                yield each

    return EventStream(from_async(answer))


def test_its_models_are_sent_as_json() -> None:
    with FakeSSEServer([head(CHUNKED), *words("Hel", "lo"), chunk(b"data: [DONE]\n\n"), LAST_CHUNK]) as server:
        data = b"".join(chat(server)({}, lambda *_: None))
    blocks = data.decode().removeprefix(":ok\n").split("\n\n")[:-1]
    assert [json.loads(block.removeprefix("data: "))["choices"][0]["delta"]["content"] for block in blocks] == [
        "Hel", "lo",
    ]  # fmt: skip


def test_what_is_not_set_is_left_out_by_a_registered_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_encoder, "_registered", functools.singledispatch(json_encoder._unknown))
    register_encoder(openai.BaseModel, lambda model: model.to_dict(mode="json"))
    script = [head(CHUNKED), *words("Hel"), chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
    with FakeSSEServer(script) as server:
        data = b"".join(chat(server)({}, lambda *_: None))
    given = json.loads(data.removeprefix(b":ok\ndata: "))
    assert given == json.loads(words("Hel")[0].partition(b"data: ")[2].partition(b"\n")[0])


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_the_end_of_the_stream_closes_its_connection_while_the_model_thinks(how: str) -> None:
    with FakeSSEServer([head(CHUNKED), *words("Hel"), HOLD]) as server:
        stream = chat(server)
        stream.open({})
        chunks = iter(stream)
        assert (next(chunks), b"Hel" in next(chunks)) == (b":ok\n", True)
        getattr(stream, how)()
        assert server.client_left.acquire(timeout=TIMEOUT)
        stream.close()
        assert join_producer(stream, TIMEOUT)
