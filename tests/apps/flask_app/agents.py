"""Words by the protocols of agents: MCP 2026-07-28, A2A 1.0 and AG-UI, as short as their clients allow.

example_projects/mcp_server and example_projects/a2a_agent have the protocols themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import flask
from flask import Blueprint, request

from ssesync import Event
from ssesync_flask import EventStreamResponse

blueprint = Blueprint("agents", __name__)


def words_of(task: dict[str, Any]) -> Iterator[str]:
    """The words that a request asks for."""
    from .sdk import words

    return words(task["model"], task["count"])


def stream(events: Iterator[Any], broken: dict[str, Any], task: dict[str, Any]) -> flask.Response:
    """An answer with an error event of the protocol."""
    return EventStreamResponse(events, error_event=Event.from_json(broken), **task.get("options", {}))


@blueprint.post("/mcp")
def mcp() -> Any:
    message = request.get_json()
    id, params = message.get("id"), message.get("params", {})
    if message["method"] == "tools/call":
        broken = {"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": "The server ended the call early."}}
        return stream(call(id, params), broken, params["arguments"])
    if message["method"] == "tools/list":
        result: dict[str, Any] = {"tools": [{"name": "words", "inputSchema": {"type": "object"}}]}
    else:
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    server = {"io.modelcontextprotocol/serverInfo": {"name": "words", "version": "1"}}
    common = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": server}
    return {"jsonrpc": "2.0", "id": id, "result": result | common}


def call(id: Any, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, word in enumerate(words_of(params["arguments"])):
        progress = {"progressToken": params["_meta"]["progressToken"], "progress": number, "message": word}
        yield {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
    result = {"resultType": "complete", "content": [], "isError": False}
    yield {"jsonrpc": "2.0", "id": id, "result": result}


@blueprint.get("/.well-known/agent-card.json")
def card() -> dict[str, Any]:
    interface = {"url": f"{request.host_url}a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return {
        "name": "words",
        "description": "Words.",
        "version": "1",
        "supportedInterfaces": [interface],
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [],
    }


@blueprint.post("/a2a")
def a2a() -> flask.Response:
    message = request.get_json()
    task = json.loads(message["params"]["message"]["parts"][0]["text"])
    error = {"code": -32603, "message": "The server ended the answer early."}
    return stream(send(message["id"], task), {"jsonrpc": "2.0", "id": message["id"], "error": error}, task)


def send(id: Any, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": id, "result": {kind: {"contextId": "1", **fields}}}

    yield event("task", id="1", status={"state": "TASK_STATE_WORKING"})
    for number, word in enumerate(words_of(task)):
        artifact = {"artifactId": "1", "parts": [{"text": word}]}
        yield event("artifactUpdate", taskId="1", artifact=artifact, append=number > 0)
    yield event("statusUpdate", taskId="1", status={"state": "TASK_STATE_COMPLETED"})


@blueprint.post("/ag-ui")
def ag_ui() -> flask.Response:
    """Models of AG-UI's own package, given to the stream as they are."""
    task = request.get_json()["forwardedProps"]
    broken = {"type": "RUN_ERROR", "message": "The server ended the run early."}
    return stream(run(task), broken, task)


def run(task: dict[str, Any]) -> Iterator[Any]:
    from ag_ui import core

    yield core.RunStartedEvent(thread_id="1", run_id="1")
    yield core.TextMessageStartEvent(message_id="1", role="assistant")
    for word in words_of(task):
        yield core.TextMessageContentEvent(message_id="1", delta=word)
    yield core.TextMessageEndEvent(message_id="1")
    yield core.RunFinishedEvent(thread_id="1", run_id="1")
