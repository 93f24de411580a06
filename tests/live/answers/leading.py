"""The servers of the tests of contexts, and streams whose producers the tests lead."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from tests.apps.line import Line
from tests.http_client import Response
from tests.live.frameworks.switchboard import Switchboard
from tests.servers import GTHREAD, SYNC, Kind, Server, eventually, gunicorn, launch, runserver

__all__ = ["SERVERS", "WRAPPED", "Leader", "Led"]

APP = "contexts"
_DJANGO = {"DJANGO_SETTINGS_MODULE": "tests.apps.django_project.settings.contexts"}
_WRAPPERS = {**_DJANGO, "WRAPPERS": "opentelemetry sentry"}
SERVERS = {
    kind.name: kind
    for kind in (
        Kind("gthread", gunicorn(*GTHREAD, app=APP), environment=_DJANGO),
        Kind("sync", gunicorn(*SYNC, app=APP), environment=_DJANGO),
        Kind("werkzeug", launch("werkzeug", APP), environment=_DJANGO),
        Kind("runserver", runserver(), inherits=False, environment=_DJANGO),
        # Sentry changes the frameworks of its whole process.
        Kind("wrapped gthread", gunicorn(*GTHREAD, app=APP), environment=_WRAPPERS),
        Kind("wrapped sync", gunicorn(*SYNC, app=APP), environment=_WRAPPERS),
    )
}
WRAPPED = [name for name in SERVERS if name.startswith("wrapped")]


class Led:
    """A stream that has begun, and its producer, which waits for what the test orders."""

    def __init__(self, response: Response, producer: Line) -> None:
        self.response, self.producer = response, producer

    def do(self, step: str) -> Any:
        """Have the producer make a step; what the client gets of it."""
        self.producer.say(do=step)
        return self.event()

    def event(self) -> Any:
        """The next event's data."""
        event = self.response.find(b"\n\n")
        assert event.startswith(b"data: "), event
        return json.loads(event.removeprefix(b"data: "))

    def end(self) -> None:
        """Have the producer return, and fail unless the response ends well behind that."""
        self.producer.say(do="end")
        assert self.response.read() == b""
        assert self.response.end in ("last chunk", "eof")


class Leader:
    """Opens streams at one server, all under a key of its own."""

    def __init__(self, server: Server, switchboard: Switchboard) -> None:
        self.server, self._switchboard = server, switchboard
        self.key = uuid.uuid4().hex

    def target(self, path: str, options: dict[str, Any] | None = None, **query: Any) -> str:
        """The path of a request that says what the application has to know."""
        query |= {"key": self.key, "line": self._switchboard.port, "options": json.dumps(options or {})}
        return f"{path}?{urlencode(query)}"

    def answer(self) -> Line:
        """The next call of a producer."""
        return self._switchboard.answer()

    @contextlib.contextmanager
    def stream(
        self,
        path: str,
        options: dict[str, Any] | None = None,
        body: bytes | None = None,
        count: int = 1,
        detached: bool = True,
        **headers: str,
    ) -> Iterator[Led]:
        """A stream that is led. If it is to be detached, it must be one of so many."""
        method = "GET" if body is None else "POST"
        if body is not None:
            headers["Content_Length"] = str(len(body))
        with self.server.connect() as wire:
            target = self.target(path, options)
            lines = [f"{method} {target} HTTP/1.1", "Host: test", "X-Of-Client: yes"]
            lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            wire.socket.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
            response = Response(wire, method)
            assert response.status == 200, self.server.log()[-3000:]
            response.expect(b":ok\ndata: begun\n\n")
            if detached:
                assert eventually(lambda: self.server.state()["tiers"] == {"detached": count, "served": 0})
            led = Led(response, self._switchboard.answer())
            try:
                yield led
            finally:
                led.producer.hang_up()

    def facts(self, name: str = "order", count: int = 1, of: str = "") -> list[Any]:
        """What was noted, once so much was."""

        def noted() -> list[Any]:
            found: list[Any] = json.loads(self.server.fetch(f"/facts?of={of or self.key}")).get(name, [])
            return found

        assert eventually(lambda: len(noted()) >= count), noted()
        return noted()
