"""An EventSource as the service under test of LaunchDarkly's sse-contract-tests.

The harness tells this service over HTTP which stream to follow and where to report what comes; it plays
the stream's server itself. ``python -m tests.unit.contract.service [port]``, and then, for a run of it all::

    sse-contract-tests --url http://127.0.0.1:8000 --stop-service-at-end
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import requests

from ssesync import Backoff, Event, EventSource

CAPABILITIES = [
    "bom",
    "comments",
    "headers",
    "last-event-id",
    "post",
    "read-timeout",
    "report",
    "restart",
    "server-directed-shutdown-request",
]
DEFAULT_PORT = 8000
# The harness has a sweep of payloads that goes to 128 MiB.
MAX_EVENT_SIZE = 256 * 1024 * 1024
# How long a callback that is being sent may hold up the end of its stream: the harness may have stopped reading.
LAST_CALLBACK_SECONDS = 5.0
CALLBACK_SECONDS = 60.0


class BadRequest(Exception):
    """What was asked makes no sense; the message says why."""


class Stream:
    """One EventSource, followed on a thread of its own, which posts all that happens in the order it happens in."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._callback_url = _url(parameters, "callbackUrl").rstrip("/")
        self._callbacks = requests.Session()
        self._callbacks.trust_env = False
        self._count = 0
        self._closed = threading.Event()
        self._reported: BaseException | None = None
        self._source = EventSource(
            _url(parameters, "streamUrl"), on_error=self._report, max_event_size=MAX_EVENT_SIZE, **_options(parameters)
        )
        self._thread = threading.Thread(target=self._follow, name="contract-stream", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        self._source.restart()

    def close(self) -> None:
        """Stop; nothing is posted from when this returns."""
        self._closed.set()
        self._source.close()
        self._thread.join(LAST_CALLBACK_SECONDS)

    def _follow(self) -> None:
        try:
            with self._callbacks, self._source:
                for event in self._source.events_and_comments():
                    self._post(_message(event))
        except Exception as error:
            if error is not self._reported:
                self._report(error)

    def _report(self, error: BaseException) -> None:
        self._reported = error
        self._post({"kind": "error", "error": f"{type(error).__name__}: {error}"})

    def _post(self, message: dict[str, Any]) -> None:
        if self._closed.is_set():
            return
        self._count += 1
        try:
            self._callbacks.post(f"{self._callback_url}/{self._count}", json=message, timeout=CALLBACK_SECONDS)
        except requests.RequestException:
            # No one listens any more.
            self._closed.set()
            self._source.close()


def _message(event: Event) -> dict[str, Any]:
    if event.data is None:
        return {"kind": "comment", "comment": event.comment or ""}
    return {"kind": "event", "event": {"type": event.type, "data": event.data, "id": event.id or ""}}


def _options(parameters: dict[str, Any]) -> dict[str, Any]:
    """What the harness asks for, as EventSource takes it. Null and absent are the same."""
    # The harness expects a POST to come back too.
    options: dict[str, Any] = {"reconnect": True}
    if (delay := _milliseconds(parameters, "initialDelayMs", 0)) is not None:
        options["backoff"] = Backoff(initial=delay)
    if (timeout := _milliseconds(parameters, "readTimeoutMs", 1)) is not None:
        options["idle_timeout"] = timeout
    if last_event_id := _text(parameters, "lastEventId"):
        options["last_event_id"] = last_event_id
    if method := _text(parameters, "method"):
        if not (method.isascii() and method.isalpha()):
            raise BadRequest("method takes the name of an HTTP method")
        options["method"] = method
    headers = parameters.get("headers")
    headers = {} if headers is None else headers
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise BadRequest("headers takes an object of strings")
    body = _text(parameters, "body")
    if body:
        options["data"] = body.encode()
        if not any(name.lower() == "content-type" for name in headers):
            headers = {**headers, "Content-Type": "text/plain; charset=utf-8"}
    if headers:
        options["headers"] = headers
    return options


def _url(parameters: dict[str, Any], name: str) -> str:
    value = _text(parameters, name) or ""
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"{name} takes an http URL")
    return value


def _text(parameters: dict[str, Any], name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} takes a string")
    return value


def _milliseconds(parameters: dict[str, Any], name: str, least: int) -> float | None:
    """The seconds, None if nothing was said."""
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadRequest(f"{name} takes whole milliseconds, {least} or more")
    return value / 1000


class Service(ThreadingHTTPServer):
    """Listens on 127.0.0.1; its streams live in ``/streams/<number>``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.streams: dict[str, Stream] = {}
        self.created = 0

    def create(self, parameters: dict[str, Any]) -> str:
        try:
            stream = Stream(parameters)
        except (TypeError, ValueError) as error:  # EventSource's own checks
            raise BadRequest(str(error)) from error
        with self.lock:
            self.created += 1
            path = f"/streams/{self.created}"
            self.streams[path] = stream
        return path

    def take_away(self, path: str) -> Stream | None:
        with self.lock:
            return self.streams.pop(path, None)

    def close_all(self) -> None:
        for path in list(self.streams):
            stream = self.take_away(path)
            if stream is not None:
                stream.close()


class Handler(BaseHTTPRequestHandler):
    """Four requests on ``/`` and on a stream."""

    server: Service
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self._path() != "/":
            return self._answer(404)
        return self._answer(200, {"name": "ssesync", "capabilities": CAPABILITIES})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self._path()
        stream = self.server.streams.get(path)
        if stream is None and path != "/":
            return self._answer(404)
        try:
            parameters = _object(body)
            if stream is None:
                location = f"http://{self.headers.get('Host')}{self.server.create(parameters)}"
                return self._answer(201, location=location)
            if parameters.get("command") != "restart":
                raise BadRequest("the one command is restart")
        except BadRequest as error:
            return self._answer(400, {"error": str(error)})
        stream.restart()
        return self._answer(202)

    def do_DELETE(self) -> None:
        path = self._path()
        if path == "/":
            self._answer(204)
            threading.Thread(target=self.server.shutdown, daemon=True).start()
            return None
        stream = self.server.take_away(path)
        if stream is None:
            return self._answer(404)
        stream.close()
        return self._answer(204)

    def _path(self) -> str:
        # The harness joins its base URL and what comes after it, which may leave two slashes.
        return "/" + self.path.partition("?")[0].strip("/")

    def _answer(self, status: int, message: dict[str, Any] | None = None, location: str | None = None) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        if location is not None:
            self.send_header("Location", location)
        if body:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the harness logs every request."""


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest("not a JSON object")
    return value


def main(arguments: list[str]) -> None:
    with Service(int(arguments[0]) if arguments else DEFAULT_PORT) as service:
        print(f"listening on http://127.0.0.1:{service.server_port}", flush=True)
        try:
            service.serve_forever(poll_interval=0.05)
        except KeyboardInterrupt:
            pass
        service.close_all()


if __name__ == "__main__":
    main(sys.argv[1:])
