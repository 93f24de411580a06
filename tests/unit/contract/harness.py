"""The harness's part: a stream server that does what a test says, and an ear for the service's callbacks."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from ssesync.testing import CHUNKED, FIN, HOLD, LAST_CHUNK, RST, FakeSSEServer, RecordedRequest, Step, chunk, head
from tests.unit.client.raw_server import TIMEOUT

ROOT = Path(__file__).parents[3]
JSON_BODY = '{"hello": "world"}'
JSON_TYPE = {"content-type": "application/json; charset=utf-8"}


class Connection:
    """One connection of the service to the stream server, in the test's hands."""

    def __init__(self, request: RecordedRequest, opening: bytes) -> None:
        self.request = request
        self._steps: queue.Queue[bytes | Step | None] = queue.Queue()
        self._steps.put(opening)

    def send(self, *pieces: str | bytes) -> None:
        """Send each piece as a chunk of its own."""
        for piece in pieces:
            self._steps.put(chunk(piece.encode() if isinstance(piece, str) else piece))

    def drop(self, how: str = "FIN") -> None:
        """End it: with the last chunk, which leaves the connection open for the next request, with FIN or with RST."""
        if how == "last chunk":
            self._steps.put(LAST_CHUNK)
        self._steps.put({"FIN": FIN, "RST": RST}.get(how))

    def hold(self) -> None:
        """From here on wait for the client to leave."""
        self._steps.put(HOLD)

    def __iter__(self) -> Iterator[bytes | Step]:
        while (step := self._steps.get()) is not None:
            yield step


class StreamServer:
    """Answers every request with a stream that the test goes on with, or those first in line with an answer of its own.

    :param opening: what is sent at once with the headers of each stream.
    """

    def __init__(self, answers: Sequence[bytes] = (), opening: str = "") -> None:
        self._answers = list(answers)
        self._opening = head(CHUNKED) + (chunk(opening.encode()) if opening else b"")
        self._waiting: queue.Queue[Connection] = queue.Queue()
        self._all: list[Connection] = []
        self._server = FakeSSEServer(self._script)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def requests(self) -> list[RecordedRequest]:
        return self._server.requests

    def __enter__(self) -> StreamServer:
        self._server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for connection in self._all:
            connection.drop()
        self._server.__exit__(*error)

    def connection(self) -> Connection:
        """The next stream that the service opened."""
        return self._waiting.get(timeout=TIMEOUT)

    def wait_for_request(self) -> None:
        self._server.wait_for_requests(1, TIMEOUT)

    def wait_until_client_left(self) -> None:
        self._server.wait_for_client_left(TIMEOUT)

    def _script(self, request: RecordedRequest) -> Any:
        if self._answers:
            return [self._answers.pop(0)]
        connection = Connection(request, self._opening)
        self._all.append(connection)
        self._waiting.put(connection)
        return connection


def answer(status: str, *headers: str) -> bytes:
    return head("Content-Length: 0", *headers, status=status, content_type=None)


class Ear(ThreadingHTTPServer):
    """Hears the callbacks of all clients, each under a number of its own."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _EarHandler)
        self.heard: list[queue.Queue[tuple[int, Any]]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), name="test-ear", daemon=True).start()

    def new(self) -> tuple[str, queue.Queue[tuple[int, Any]]]:
        messages: queue.Queue[tuple[int, Any]] = queue.Queue()
        self.heard.append(messages)
        return f"http://127.0.0.1:{self.server_port}/{len(self.heard) - 1}", messages


class _EarHandler(BaseHTTPRequestHandler):
    server: Ear
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        _, client, count = self.path.split("/")
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard[int(client)].put((int(count), message))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Client:
    """An EventSource in the service, and what it reports."""

    def __init__(self, url: str, messages: queue.Queue[tuple[int, Any]]) -> None:
        self.url = url
        self._messages = messages
        self._count = 0

    def message(self) -> Any:
        count, message = self._messages.get(timeout=TIMEOUT)
        self._count += 1
        assert count == self._count, "a callback is out of order"
        return message

    def event(self) -> tuple[str, str, str]:
        """The type, data and id of the event that is reported next."""
        message = self.message()
        assert message["kind"] == "event", message
        assert set(message) == {"kind", "event"}
        return message["event"]["type"], message["event"]["data"], message["event"]["id"]

    def comment(self) -> str:
        message = self.message()
        assert set(message) == {"kind", "comment"}, message
        return str(message["comment"])

    def error(self) -> str:
        message = self.message()
        assert set(message) == {"kind", "error"}, message
        return str(message["error"])

    def waiting(self) -> int:
        """How many messages came that were not looked at."""
        return self._messages.qsize()

    def assert_silent(self) -> None:
        assert self._messages.empty(), self._messages.get()

    def command(self, command: str) -> int:
        return requests.post(self.url, json={"command": command}, timeout=TIMEOUT).status_code

    def delete(self) -> int:
        return requests.delete(self.url, timeout=TIMEOUT).status_code


class Service:
    """The service, in a process of its own."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.contract.service", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("listening on ").strip() + "/"

    def post(self, parameters: Any) -> requests.Response:
        return requests.post(self.url, json=parameters, timeout=TIMEOUT)

    @contextlib.contextmanager
    def client(self, server: StreamServer | str, **parameters: Any) -> Iterator[Client]:
        """Follow a stream as the harness has it done, nulls and all, while the block lasts."""
        callback_url, messages = self._ear.new()
        parameters = {"initialDelayMs": None, "readTimeoutMs": None, **parameters}
        stream_url = server if isinstance(server, str) else server.url
        created = self.post({"tag": "test", "callbackUrl": callback_url, "streamUrl": stream_url, **parameters})
        assert created.status_code == 201, created.text
        client = Client(created.headers["Location"], messages)
        try:
            yield client
        finally:
            client.delete()

    def stop(self) -> int:
        """End the service as the harness does; its exit status."""
        try:
            assert requests.delete(self.url, timeout=TIMEOUT).status_code == 204
            return self.process.wait(TIMEOUT)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
