"""The servers: how each is started, what it does with a stream, and how tests reach it."""

from __future__ import annotations

import itertools
import json
import ssl
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests import servers
from tests.apps import control
from tests.servers import GTHREAD, HOOKS, SETTINGS, SYNC, Command, eventually, flask_run, runserver, uwsgi

from .strict import Answer, Strict

OPENING = b":ok\n"
PLACES = ("flask", "django")
APP = "detached"


@dataclass(frozen=True)
class Kind(servers.Kind):
    """A server, and what becomes of a subscription on it."""

    #: The tier that a subscription gets by itself.
    tier: str = "detached"
    #: The tier that it gets with ``detach=True``.
    opted: str = "detached"
    #: The framing of a stream: to HTTP/1.1 and to HTTP/1.0.
    framing: tuple[str, str] = ("chunked", "raw")
    #: What it answers with, to HTTP/1.1 and to HTTP/1.0.
    version: tuple[str, str] = ("HTTP/1.1", "HTTP/1.0")
    #: Takes more requests on a connection.
    reusable: bool = False
    #: What comes behind the head that answers HEAD.
    after_head: bytes = b""


def gunicorn(*options: str, config: str = SETTINGS) -> Command:
    """With an access log, and where there are no hooks, little time for streams that don't end."""
    grace = ("--graceful-timeout", "5") if config == SETTINGS else ()
    return servers.gunicorn("--access-logfile", "-", *grace, *options, app=APP, config=config)


def launch(name: str) -> Command:
    return servers.launch(name, APP)


OLD = ("HTTP/1.0", "HTTP/1.0")
NEW = ("HTTP/1.1", "HTTP/1.1")
RAW = ("raw", "raw")
#: Werkzeug's server answers HTTP/1.0 with chunks too, where it has threads, and HTTP/1.1 without, where it has none.
THREADED: dict[str, Any] = {"framing": ("chunked", "chunked"), "version": NEW}
ALONE: dict[str, Any] = {"framing": RAW, "version": OLD, "concurrent": False}

#: Every server.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("gthread", gunicorn(*GTHREAD), reusable=True),
        Kind("gthread_unix", gunicorn(*GTHREAD), transport="unix", reusable=True),
        Kind(
            "gthread_preload",
            gunicorn(*GTHREAD, "--preload", config=HOOKS),
            reusable=True,
            environment={"TESTS_USE_EARLY": "1"},
        ),
        Kind("sync", gunicorn(*SYNC), concurrent=False),
        Kind("sync_unix", gunicorn(*SYNC), concurrent=False, transport="unix"),
        Kind("werkzeug", launch("werkzeug"), **THREADED),
        Kind("werkzeug_alone", launch("werkzeug_alone"), **ALONE),
        Kind("werkzeug_unix", launch("werkzeug"), transport="unix", **THREADED),
        Kind("flask_run", flask_run("tests.apps.detached:flask_app"), inherits=False, **THREADED),
        Kind("runserver", runserver(), inherits=False, framing=RAW, version=NEW, reusable=True),
        Kind("runserver_alone", runserver("--nothreading"), inherits=False, framing=RAW, version=NEW, concurrent=False),
        Kind("wsgiref", launch("wsgiref"), tier="served", **ALONE),
        Kind("cheroot", launch("cheroot"), tier="served", version=NEW, reusable=True),
        Kind("uwsgi", uwsgi(APP), tier="served", inherits=False, framing=RAW),
        # It sends the last chunk after HEAD too.
        Kind("waitress", launch("waitress"), tier="served", opted="served", after_head=b"0\r\n\r\n"),
        Kind("gevent", gunicorn("--worker-class", "gevent"), tier="served", opted="served", reusable=True),
        Kind("gthread_tls", gunicorn(*GTHREAD), tier="served", opted="served", transport="tls", reusable=True),
    )
}
#: Those where a subscription is detached by itself.
DETACHING = [kind.name for kind in KINDS.values() if kind.tier == "detached"]
#: Those where it can be.
ABLE = [kind.name for kind in KINDS.values() if kind.opted == "detached"]
#: One of each make among them, over TCP and a unix socket, with threads and without.
MAKES = ["gthread", "sync_unix", "werkzeug", "werkzeug_alone", "runserver", "wsgiref", "cheroot", "uwsgi"]


class Server(servers.Server):
    """A running server, and what it holds when nobody is there."""

    kind: Kind
    django_settings = "tests.apps.django_project.settings.detached"
    #: What it held before the test.
    base: dict[str, Any]

    def __init__(self, kind: Kind, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        self.door = folder / "door"
        super().__init__(kind, folder, tls)
        try:
            self._warm_up()
        except BaseException:
            self.stop()
            raise

    def _warm_up(self) -> None:
        """Have it open what it keeps open: what its threads and the library's share, once for all streams."""
        for place, detach in itertools.product(PLACES, (True, False)):
            with self.subscribe(place, options={"detach": detach}) as stream:
                stream.answer.expect(OPENING)
                stream.publish("warm")
                stream.revoke()
                stream.answer.rest()
        assert eventually(lambda: not self.state()["streams"])
        count = 0
        while count != (count := len(self.state()["descriptors"])):
            self.fetch("/plain")
        self.base = self.state()

    def ask(self, do: str, **values: Any) -> Any:
        """What the process answers at its door."""
        return control.ask(self.door, do, **values)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.ask("state")
        return state

    def facts(self, name: str) -> dict[str, list[Any]]:
        facts: dict[str, list[Any]] = self.ask("facts", key=name)
        return facts

    def wire(self, **options: Any) -> Strict:
        """A new connection."""
        return Strict(self.connect(**options).socket)

    def ping(self, place: str = "flask") -> None:
        """Fail unless an ordinary request gets its ordinary answer."""
        with self.wire() as wire:
            answer = wire.get(f"/{place}/ping", Connection="close")
            assert answer.status == 200
            answer.end(b"pong")

    def publish(self, place: str, channel: str, *data: Any) -> list[str]:
        """Publish by an ordinary request; the ids. At the door where the only thread sits in a stream."""
        ids: list[str]
        if not self.kind.concurrent and any(stream["tier"] == "served" for stream in self.state()["streams"]):
            ids = self.ask("publish", place=place, channel=channel, data=data)
            return ids
        with self.wire() as wire:
            target = f"/{place}/publish?channel={quote(channel)}"
            answer = wire.get(target, method="POST", body=json.dumps(data).encode(), Connection="close")
            body = answer.rest()
            assert answer.status == 200, body
            ids = json.loads(body)
        return ids

    def subscribe(self, place: str = "flask", name: str = "", **options: Any) -> Stream:
        """A stream of a channel of its own, or of ``name``."""
        return Stream(self, place, name or f"{place}{uuid.uuid4().hex[:12]}", **options)

    def closed(self, reason: str) -> int:
        """How many streams it closed for a reason."""
        count: int = self.state()["closed"].get(reason, 0)
        return count

    def settle(self) -> None:
        """Fail unless it comes to hold what it held when nobody was there."""

        def is_settled() -> bool:
            self.now = self.state()
            return (
                not self.now["streams"]
                and len(self.now["descriptors"]) <= len(self.base["descriptors"])
                and self.now["subscribers"] <= self.base["subscribers"]
            )

        if not eventually(is_settled):
            more = {number: what for number, what in self.now["descriptors"].items()
                    if what not in self.base["descriptors"].values()}  # fmt: skip
            raise AssertionError(
                f"{self.kind.name} holds more than before: {self.now['streams']}, {self.now['subscribers']} "
                f"subscribers, {more}"
            )


class Stream:
    """One subscriber: its connection, and what was published to it.

    :param version: of HTTP.
    :param query: what the view reads: ``through``, ``gzip``, ``database``, …
    :param options: of the subscription.
    """

    def __init__(
        self,
        server: Server,
        place: str,
        name: str,
        *,
        channel: str = "",
        version: str = "1.1",
        method: str = "GET",
        body: bytes | None = None,
        options: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        wire: Strict | None = None,
        **query: str,
    ) -> None:
        self.server, self.place, self.name, self.channel = server, place, name, channel or name
        if options is not None:
            query["options"] = json.dumps(options)
        self.target = f"/{place}/events/{name}?{urlencode({'channel': self.channel, **query})}"
        self.method = method
        self.wire = wire or server.wire()
        try:
            self.wire.request(self.target, method=method, version=version, body=body, **(headers or {}))
        except BaseException:
            self.wire.fin()
            raise
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The answer, once its head is there."""
        if self._answer is None:
            self._answer = self.wire.answer(self.method)
        return self._answer

    def opens(self, opening: bytes = OPENING) -> Stream:
        """Fail unless it begins as a stream does."""
        assert self.answer.status == 200, self.wire.fail("it was refused")
        assert self.answer.header("content-type") == "text/event-stream; charset=utf-8"
        self.answer.expect(opening)
        return self

    def publish(self, *data: Any) -> list[str]:
        return self.server.publish(self.place, self.channel, *data)

    def delivers(self, *data: Any) -> None:
        """Publish, and fail unless just these events come."""
        for each, event_id in zip(data, self.publish(*data), strict=True):
            self.answer.expect(event(event_id, each))

    def revoke(self) -> None:
        """Have the server end it."""
        self.server.ask("revoke", place=self.place, key=self.name)

    def described(self) -> dict[str, Any]:
        """What the process says of the one stream that it has."""
        [stream] = self.server.state()["streams"]
        assert isinstance(stream, dict)
        return stream

    def facts(self) -> dict[str, list[Any]]:
        return self.server.facts(self.name)

    def closes(self) -> Any:
        """What ``on_close`` was called with, once it was: reason, context, events."""
        assert eventually(lambda: "on_close" in self.facts())
        [call] = self.facts()["on_close"]
        return call

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.fin()


def event(event_id: str, data: Any) -> bytes:
    """An event as it is to be on the wire."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"id: {event_id}\ndata: {text}\n\n".encode()
