"""The AI chat example under gunicorn, as its own configuration has it: two workers. The tests hold its model."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ssesync.testing import FakeSSEServer
from ssesync.testing.fake_server import RecordedRequest
from ssesync.testing.script import Answer

from .started import EXAMPLES, Server, run

FOLDER = EXAMPLES / "ai_chat"
TIMEOUT = 90.0
#: The two parts of each answer. The second one comes when the test says so.
FIRST, SECOND = "The <b>first</b> part,\n\n", "and “the second” one."


class Model:
    """A server with OpenAI's chat completions API. A question with the word "wait" is answered in two parts."""

    def __init__(self) -> None:
        self.gates: dict[str, threading.Event] = {}
        self.server = FakeSSEServer(self._answer, patience=TIMEOUT)

    def questions(self, question: str) -> int:
        """How often a question has arrived."""
        return [request.json()["messages"][-1]["content"] for request in self.server.requests].count(question)

    def go_on(self, question: str) -> None:
        """Let the second part of an answer come."""
        self.gates[question].set()

    def _answer(self, request: RecordedRequest) -> Answer:
        question = request.json()["messages"][-1]["content"]
        answer = Answer()
        add_text(answer, FIRST)
        if "break" in question:
            return answer
        if "wait" in question:
            answer.wait_for(self.gates.setdefault(question, threading.Event()))
        add_text(answer, SECOND)
        return answer.event("[DONE]")


def add_text(answer: Answer, text: str) -> None:
    """Add deltas of four characters."""
    for begin in range(0, len(text), 4):
        answer.json({"choices": [{"index": 0, "delta": {"content": text[begin : begin + 4]}}]})


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Server, Model]]:
    model = Model()
    with socket.create_server(("127.0.0.1", 0)) as listener, model.server:
        command = [sys.executable, "-m", "gunicorn", "--config", str(FOLDER / "gunicorn.conf.py")]
        command += ["--chdir", str(FOLDER), "--bind", f"fd://{listener.fileno()}", "app:create_app()"]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        variables = {"CHAT_FOLDER": str(folder / "chat"), "OPENAI_BASE_URL": f"{model.server.url}v1"}
        fds = [listener.fileno()]
        with run(command, "ai_chat", url, folder, pass_fds=fds, may_fail=True, **variables) as server:
            try:
                yield server, model
            finally:
                for gate in model.gates.values():
                    gate.set()
