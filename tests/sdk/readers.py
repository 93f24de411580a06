"""The clients that are written in Python, each as its users would use it: ``python -m tests.sdk.readers NAME TASK``.

A function here reads what the task says (:class:`~tests.sdk.client_process.Task`), and yields what a user is given:
events as (type, data, ID), or texts. What it raises is an error that the user sees; its return is an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from .client_process import TIMEOUT, Task

#: A type, the data and the ID; or a text; or None, where the client tells its user that it reconnects.
Given = tuple[str | None, str, str | None] | str | None
#: Some clients have only an asynchronous interface.
Function = Callable[[Task], Iterator[Given] | AsyncIterator[Given]]
READERS: dict[str, Function] = {}
MESSAGES: Any = [{"role": "user", "content": "Say something."}]


def reader(name: str) -> Callable[[Function], Function]:
    """A decorator that makes a function a client.

    :param name: the client's name in tests/sdk/clients.py.
    """

    def add(function: Function) -> Function:
        READERS[name] = function
        return function

    return add


def request_of(task: Task) -> dict[str, Any]:
    """The request, as requests, httpx and httpx2 take it."""
    body = {"json": {"model": task.model, "count": task.count}} if task.method == "POST" else {}
    return {**body, "headers": {"X-Options": json.dumps(task.options)}}


@reader("openai, chat completions")
def openai_chat(task: Task) -> Iterator[Given]:
    import openai

    with openai.OpenAI(base_url=f"{task.base}/v1", api_key="x", max_retries=0, timeout=TIMEOUT) as client:
        headers = {"X-Options": json.dumps(task.options)}
        for chunk in client.chat.completions.create(
            model=task.model, messages=MESSAGES, max_tokens=task.count, stream=True, extra_headers=headers
        ):
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text


@reader("openai, responses")
def openai_responses(task: Task) -> Iterator[Given]:
    import openai

    with openai.OpenAI(base_url=f"{task.base}/v1", api_key="x", max_retries=0, timeout=TIMEOUT) as client:
        headers = {"X-Options": json.dumps(task.options)}
        for event in client.responses.create(
            model=task.model, input="Say something.", max_output_tokens=task.count, stream=True, extra_headers=headers
        ):
            if event.type == "response.output_text.delta":
                yield event.delta


@reader("anthropic")
def anthropic_messages(task: Task) -> Iterator[Given]:
    import anthropic

    with anthropic.Anthropic(base_url=task.base, api_key="x", max_retries=0, timeout=TIMEOUT) as client:
        headers = {"X-Options": json.dumps(task.options)}
        for event in client.messages.create(
            model=task.model, messages=MESSAGES, max_tokens=task.count, stream=True, extra_headers=headers
        ):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text


@reader("mcp")
async def mcp_progress(task: Task) -> AsyncIterator[Given]:
    from mcp import Client

    given: asyncio.Queue[str | None] = asyncio.Queue()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        await given.put(message)

    async with Client(f"{task.base}/mcp") as client:
        arguments = {"model": task.model, "count": task.count, "options": task.options}
        calling = asyncio.ensure_future(client.call_tool("words", arguments, TIMEOUT, progress))
        calling.add_done_callback(lambda _: given.put_nowait(None))
        while (word := await given.get()) is not None:
            yield word
        await calling


@reader("a2a-sdk")
async def a2a_message(task: Task) -> AsyncIterator[Given]:
    import httpx
    from a2a.client import ClientConfig, create_client
    from a2a.types import Message, Part, Role, SendMessageRequest

    asked = json.dumps({"model": task.model, "count": task.count, "options": task.options})
    message = Message(message_id="1", role=Role.ROLE_USER, parts=[Part(text=asked)])
    async with (
        httpx.AsyncClient(timeout=TIMEOUT) as http,
        await create_client(task.base, ClientConfig(httpx_client=http)) as client,
    ):
        async for event in client.send_message(SendMessageRequest(message=message)):
            if event.WhichOneof("payload") == "artifact_update":
                yield event.artifact_update.artifact.parts[0].text


@reader("ag-ui-protocol")
def ag_ui_run(task: Task) -> Iterator[Given]:
    """Its models, from and to JSON. It has no client: httpx2 reads the stream."""
    import httpx2
    import pydantic
    from ag_ui import core

    asked = {"model": task.model, "count": task.count, "options": task.options}
    state: dict[str, Any] = {"state": {}, "messages": [], "tools": [], "context": [], "forwarded_props": asked}
    body = core.RunAgentInput(thread_id="1", run_id="1", **state).model_dump(mode="json", by_alias=True)
    event_of: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(core.Event)
    with (
        httpx2.Client(timeout=TIMEOUT) as client,
        client.sse(f"{task.base}/ag-ui", method="POST", json=body, max_event_size=None) as source,
    ):
        for each in source:
            event = event_of.validate_json(each.data)
            if isinstance(event, core.RunErrorEvent):
                raise RuntimeError(event.message)
            if isinstance(event, core.TextMessageContentEvent):
                yield event.delta


@reader("httpx-sse")
def httpx_sse(task: Task) -> Iterator[Given]:
    import httpx
    from httpx_sse import connect_sse

    with (
        httpx.Client(timeout=TIMEOUT) as client,
        connect_sse(client, task.method, task.url, **request_of(task)) as source,
    ):
        source.response.raise_for_status()
        for event in source.iter_sse():
            yield event.event, event.data, event.id


@reader("httpx2")
def httpx2_sse(task: Task) -> Iterator[Given]:
    import httpx2

    with (
        httpx2.Client(timeout=TIMEOUT) as client,
        client.sse(task.url, method=task.method, **request_of(task)) as source,
    ):
        source.response.raise_for_status()
        for event in source:
            yield event.event, event.data, event.id


@reader("sseclient-py")
def sseclient_py(task: Task) -> Iterator[Given]:
    import requests
    from sseclient import SSEClient

    with requests.request(task.method, task.url, stream=True, timeout=TIMEOUT, **request_of(task)) as response:
        response.raise_for_status()
        for event in SSEClient(response).events():
            yield event.event, event.data, event.id


@reader("requests-sse")
def requests_sse(task: Task) -> Iterator[Given]:
    from datetime import timedelta

    from requests_sse import EventSource, InvalidStatusCodeError

    wait = timedelta(seconds=0.1)
    with EventSource(task.url, method=task.method, reconnection_time=wait, timeout=TIMEOUT) as source:
        with contextlib.suppress(InvalidStatusCodeError if task.method == "GET" else ()):
            for event in source:
                yield event.type, event.data or "", event.last_event_id


@reader("launchdarkly-eventsource")
def launchdarkly_eventsource(task: Task) -> Iterator[Given]:
    from ld_eventsource import SSEClient
    from ld_eventsource.actions import Event, Fault
    from ld_eventsource.config import ErrorStrategy
    from ld_eventsource.errors import HTTPStatusError

    going_on = ErrorStrategy.from_lambda(
        lambda error: (ErrorStrategy.FAIL if isinstance(error, HTTPStatusError) else ErrorStrategy.CONTINUE, None)
    )
    with SSEClient(task.url, initial_retry_delay=0.1, error_strategy=going_on) as client:
        with contextlib.suppress(HTTPStatusError):
            for each in client.all:
                if isinstance(each, Event):
                    yield each.event, each.data, each.last_event_id
                elif isinstance(each, Fault):
                    yield None


@reader("ssesync, Reader")
def our_reader(task: Task) -> Iterator[Given]:
    import requests

    from ssesync import Reader

    with requests.request(task.method, task.url, stream=True, timeout=TIMEOUT, **request_of(task)) as response:
        for event in Reader(response):
            yield event.type, event.data or "", event.id


@reader("ssesync, EventSource")
def our_event_source(task: Task) -> Iterator[Given]:
    from ssesync import Backoff, EventSource

    with EventSource(task.url, backoff=Backoff(0.1)) as source:
        for event in source:
            yield event.type, event.data or "", event.id


def report(given: Given) -> dict[str, Any]:
    if given is None:
        return {"kind": "reconnect"}
    type, data, id = (None, given, None) if isinstance(given, str) else given
    return {"kind": "event", "type": type, "data": data, "id": id}


async def read(given: AsyncIterator[Given]) -> None:
    async for each in given:
        print(json.dumps(report(each)))


def main(name: str, task: Task) -> None:
    """Report what a client gives."""
    try:
        given = READERS[name](task)
        if isinstance(given, AsyncIterator):
            asyncio.run(read(given))
        else:
            for each in given:
                print(json.dumps(report(each)))
    except Exception as error:
        print(json.dumps({"kind": "error", "error": type(error).__name__, "message": str(error)[:1000]}))
    else:
        print(json.dumps({"kind": "end"}))


if __name__ == "__main__":
    main(sys.argv[1], Task.from_json(sys.argv[2]))
