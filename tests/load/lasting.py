"""The servers that detach streams, each a process of its own on a port that it keeps when it is started again."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from gunicorn.config import KNOWN_SETTINGS

from ssesync import open_broker
from tests.live.channels.processes import TIMEOUT, lasting_port
from tests.servers import (
    GTHREAD,
    HOOKS,
    SETTINGS,
    SYNC,
    Kind,
    Server,
    children_of,
    eventually,
    gunicorn,
    launch,
    runserver,
)

from .clients import Came
from .crowd import Address, Crowd

#: What gunicorn would wait for streams that don't end. No test here may take half as long.
GRACE = 40
HOOKS_AS_DOCUMENTED = "python:ssesync.gunicorn"
APP = "flask_app.events"


def with_gunicorn(
    name: str,
    *options: str,
    hooks: str | None = HOOKS,
    preload: bool = False,
    workers: int = 1,
    environment: dict[str, str] | None = None,
) -> Kind:
    """A gunicorn with what a configuration of its own takes in, or as the command line alone says, or without hooks."""
    if preload:
        options = ("--preload", *options)
    if hooks == HOOKS_AS_DOCUMENTED and "control_socket_disable" in {setting.name for setting in KNOWN_SETTINGS}:
        options = ("--no-control-socket", *options)
    command = gunicorn(
        "--graceful-timeout", str(GRACE), "--timeout", "120", *options, "--workers", str(workers),
        app=APP, config=hooks or SETTINGS,
    )  # fmt: skip
    return Kind(name, command, environment=environment or {})


#: One of each.
GTHREAD_KIND = with_gunicorn("gthread", *GTHREAD)
SYNC_KIND = with_gunicorn("sync", *SYNC)
WERKZEUG_KIND = Kind("werkzeug", launch("werkzeug", APP))
RUNSERVER_KIND = Kind("runserver", runserver(), inherits=False)
ALL = [
    GTHREAD_KIND,
    pytest.param(SYNC_KIND, marks=pytest.mark.matrix),
    pytest.param(WERKZEUG_KIND, marks=pytest.mark.matrix),
    RUNSERVER_KIND,
]
#: How many may be connecting to one at once: what its queue has room for.
AT_ONCE = {"runserver": 6}


class Lasting(Server):
    """A server that can be started again where it was."""

    django_settings = "tests.apps.django_project.settings.events"

    def __init__(self, kind: Kind, folder: Path, broker: str, **sockopts: int) -> None:
        self._place = (kind, folder, sockopts)
        self.broker = broker
        self.lasting_port = lasting_port()
        #: The unix socket of what stands in front of it.
        self.front = ""
        self._start()

    def _start(self) -> None:
        kind, folder, sockopts = self._place
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "TESTS_BROKER": self.broker,
            **kind.environment,
        }
        Server.__init__(
            self, Kind(kind.name, kind.command, kind.transport, kind.concurrent, kind.inherits, environment), folder,
            **sockopts,
        )  # fmt: skip

    def _listen(self) -> socket.socket:
        if self.kind.transport == "unix":
            Path(self._unix).unlink(missing_ok=True)
            return super()._listen()
        return socket.create_server(("127.0.0.1", self.lasting_port), backlog=128)

    def start_again(self) -> None:
        assert self.process.poll() is not None
        self._start()

    @property
    def address(self) -> Address:
        return self._unix if self.kind.transport == "unix" else ("127.0.0.1", self.lasting_port)

    def crowd(self, *, seed: int = 1) -> Crowd:
        return Crowd(self.front or self.address, seed=seed, at_once=AT_ONCE.get(self.kind.name, 100))

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many answer."""
        seen: set[int] = set()

        def have_answered() -> bool:
            seen.add(self.state()["worker"])
            return len(seen) == count

        assert eventually(have_answered), seen

    def state(self, **query: str) -> dict[str, Any]:
        """What the process holds that answers."""
        state: dict[str, Any] = json.loads(self.fetch(f"/state?{urlencode(query)}"))
        return state

    def position(self) -> str:
        """The place in the log of a broker that several processes have."""
        with open_broker(self.broker) as broker:
            return broker.position()

    def history(self, channel: str, after: str, last: str) -> list[Came]:
        """What the log has of a channel, up to the event with these data."""
        with open_broker(self.broker) as broker, broker.subscribe(channel, last_event_id=after) as subscription:
            events: list[Came] = []
            while not events or events[-1].data != last:
                event = subscription.get(TIMEOUT)
                assert event is not None, f"the log ends after {events[-1:]}"
                events.append(Came(event.id or "", "", event.data or ""))
            return events


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def check_detached(server: Lasting, count: int | Mapping[int, int]) -> None:
    """Fail unless so many streams are open, in the worker that answers, and none of them takes a thread."""
    state = server.state()
    tiers = Counter(stream["tier"] for stream in state["streams"])
    assert tiers == Counter(detached=count if isinstance(count, int) else count.get(state["worker"], 0))
