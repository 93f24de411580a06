"""The AI chat example, used by the official client of AI SDK, the npm package ``ai``, and by raw requests."""

from __future__ import annotations

import runpy
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.sdk.nodes import NodeProcess, run_node

from . import ai
from .ai import FIRST, SECOND, TIMEOUT, Model
from .started import Server, get, read


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Model]]:
    with ai.running(tmp_path_factory.mktemp("ai_chat")) as running:
        yield running


@pytest.fixture
def server(running: tuple[Server, Model]) -> Server:
    return running[0]


@pytest.fixture
def model(running: tuple[Server, Model]) -> Model:
    return running[1]


@pytest.fixture(scope="module")
def node(running: tuple[Server, Model]) -> Iterator[NodeProcess]:
    with run_node("ai_chat.mjs", running[0].url) as node:
        yield node


class Client:
    """A client of AI SDK with a chat of its own, or that of another client."""

    def __init__(self, node: NodeProcess, other: Client | None = None) -> None:
        self._node = node
        self._name = uuid.uuid4().hex
        self.chat = uuid.uuid4().hex if other is None else other.chat

    def send(self, text: str) -> None:
        self._node.send({"client": self._name, "send": {"chat": self.chat, "text": text}})

    def resume(self) -> None:
        self._node.send({"client": self._name, "resume": {"chat": self.chat}})

    def regenerate(self) -> None:
        self._node.send({"client": self._name, "regenerate": {}})

    def leave(self) -> None:
        self._node.send({"client": self._name, "leave": {}})

    def wait_for_text(self, text: str) -> None:
        self._node.read(lambda line: line.get("client") == self._name and line.get("text") == text, TIMEOUT)

    def ended(self) -> dict[str, Any]:
        """How its last request has ended. Text that was shown before is no longer of interest."""
        line = self._node.read(lambda line: line.get("client") == self._name and "text" not in line, TIMEOUT)
        ended: dict[str, Any] = line["ended"]
        ended["chunks"] = list(dict.fromkeys(ended["chunks"]))
        return ended


WHOLE = {
    "protocol": "v1",
    "response": 200,
    "chunks": ["start", "text-start", "text-delta", "text-end", "finish"],
    "finished": {"isAbort": False, "isError": False},
    "status": "ready",
    "answers": [FIRST + SECOND],
}


def test_ai_sdk_gets_a_whole_answer_and_then_there_is_none_to_resume(node: NodeProcess) -> None:
    client, late = Client(node), Client(node)
    client.send("Hello")
    assert client.ended() == WHOLE
    client.send("And a second question?")
    assert client.ended()["answers"] == [FIRST + SECOND] * 2
    client.resume()
    assert client.ended()["response"] == 204
    late.resume()  # a chat that does not exist
    assert late.ended() == {"protocol": None, "response": 204, "chunks": [], "status": "ready", "answers": []}
    client.regenerate()
    assert client.ended()["answers"] == [FIRST + SECOND] * 2


def test_ai_sdk_resumes_in_mid_answer(node: NodeProcess, model: Model) -> None:
    client = Client(node)
    client.send("wait for me")
    client.wait_for_text(FIRST)
    client.leave()
    assert client.ended()["finished"] == {"isAbort": True, "isError": False}
    other = Client(node, client)
    client.resume()
    other.resume()
    client.wait_for_text(FIRST)
    other.wait_for_text(FIRST)
    model.go_on("wait for me")
    assert client.ended() == WHOLE
    assert other.ended() == WHOLE
    assert model.questions("wait for me") == 1


def test_ai_sdk_takes_no_part_of_an_answer_for_the_whole(node: NodeProcess) -> None:
    client = Client(node)
    client.send("break off")
    ended = client.ended()
    assert ended["chunks"] == ["start", "text-start", "text-delta", "error"]
    assert (ended["status"], ended["error"]) == ("error", "The answer broke off.")
    assert ended["answers"] == [FIRST]


def test_ai_sdk_is_told_of_a_stop(node: NodeProcess, server: Server) -> None:
    client = Client(node)
    client.send("wait until I stop")
    client.wait_for_text(FIRST)
    url = f"{server.url}api/chat/{client.chat}/stop"
    assert requests.post(url, timeout=TIMEOUT).json() == {"stopped": True}
    ended = client.ended()
    assert ended["chunks"] == ["start", "text-start", "text-delta", "abort"]
    assert (ended["status"], ended["answers"]) == ("ready", [FIRST])
    assert requests.post(url, timeout=TIMEOUT).json() == {"stopped": False}


def test_both_kinds_of_clients_have_the_same_answer(server: Server) -> None:
    chat = uuid.uuid4().hex
    question = {"id": "1", "question": "Hello"}
    asked = [requests.post(f"{server.url}chats/{chat}", json=question, timeout=TIMEOUT) for _ in range(2)]
    assert [response.status_code for response in asked] == [202, 202]
    number, again = [response.json()["number"] for response in asked]
    assert number == again
    with read(f"{server.url}chats/{chat}/answers/{number}") as reader:
        *chunks, end = [event.json() for event in reader]
    assert end == {"state": "done", "events": len(chunks)}
    assert "".join(chunk.get("delta", "") for chunk in chunks) == FIRST + SECOND
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}
    body = {"id": chat, "messages": [message]}
    with get(f"{server.url}api/chat", method="POST", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert len(lines) == len(chunks) + 2
    assert lines[-2:] == ['{"type":"finish"}', "[DONE]"]


def test_the_model_ends_an_answer_that_is_to_be_made_again(server: Server, model: Model) -> None:
    chat, question = uuid.uuid4().hex, f"wait {uuid.uuid4()}"
    number = requests.post(f"{server.url}chats/{chat}", json={"id": "1", "question": question}, timeout=TIMEOUT).json()
    with read(f"{server.url}chats/{chat}/answers/{number['number']}") as reader:
        assert reader.read() is not None
        message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": question}]}
        body = {"id": chat, "messages": [message], "trigger": "regenerate-message"}
        with get(f"{server.url}api/chat", method="POST", json=body) as response:
            assert response.status_code == 200
            *_, end = [event.json() for event in reader if event.type != "ping"]
            assert end["state"] == "stopped"
            model.go_on(question)
            assert response.text.endswith('data: {"type":"finish"}\n\ndata: [DONE]\n\n')


@pytest.mark.parametrize("path", ["chats/short", "chats/short/questions", f"chats/{'a' * 16}/answers/7"])
def test_what_does_not_exist_is_answered_404(server: Server, path: str) -> None:
    with get(server.url + path) as response:
        assert response.status_code == 404


PARTS = [{"type": "text", "text": "Hello"}]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"chats/{'a' * 16}", {"id": "1"}, 400),
        (f"chats/{'a' * 16}", ["id"], 400),
        (f"chats/{'a' * 16}", {"id": "1", "question": " "}, 400),
        (f"chats/{'a' * 16}", {"id": 1, "question": "Hello"}, 400),
        (f"chats/{'a' * 16}", {"id": "1", "question": "x" * 5000}, 400),
        (f"chats/{'a' * 16}", {"id": "1", "question": "half \ud800"}, 400),
        ("api/chat", {"id": "a" * 16, "messages": []}, 400),
        ("api/chat", {"id": "a" * 16, "messages": [{"id": "1", "parts": [None]}]}, 400),
        ("api/chat", {"id": "a", "messages": [{"id": "1", "parts": PARTS}]}, 404),
        ("api/chat", {"id": 7, "messages": [{"id": "1", "parts": PARTS}]}, 404),
    ],
)
def test_a_malformed_question_is_refused(server: Server, path: str, body: Any, status: int) -> None:
    assert requests.post(server.url + path, json=body, timeout=TIMEOUT).status_code == status


def test_the_model_that_is_built_in_says_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    answer = runpy.run_path(str(ai.FOLDER / "model.py"))["answer"]
    text = "".join(answer([{"question": "Why?"}], 0))
    assert text.startswith("You asked: “Why?”")
    assert "".join(answer([{"question": "Why?"}], 0)) == text
    with pytest.raises(RuntimeError):
        list(answer([{"question": "Will it break?"}], 0))
