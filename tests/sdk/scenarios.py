"""What each client goes through, all side by side with one gunicorn, and what must come of it.

A client that does not reconnect reads answers, which end with its connection. One that does follows a run that the test
produces, ``story``: it must get each of its words once, whatever happens to the server, and then stay away.

- ``whole``: an answer to its end.
- ``error``: the producer raises in mid-stream. The client's user must not take it for the end, nor see its text.
- ``term``: the server is stopped in mid-stream, and another one takes its place. An answer that has the time is
  finished; one that has not is an error. A client that reconnects gets the rest.
- ``kill``: the same with SIGKILL for the worker, where no answer is finished.
- ``odd``: odd data (tests/sdk/odd.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssesync import Broker, Run, open_broker
from tests.apps.flask_app.sdk import SECRET
from tests.servers import HOOKS, Kind, Server, gunicorn

from . import odd
from .client_process import ClientProcess, Task
from .clients import Client
from .odd import FINISHED, Case, Seen

#: Goes on for longer than any test.
ENDLESS = 100_000
STORY = "story"
#: Clients that start side by side.
AT_A_TIME = 4
WORDS = [f"word{number} " for number in range(20)]
#: How a client's results differ from what they must be, by case; empty: they don't.
Outcome = dict[str, str]


class SharedServer(Server):
    """A gunicorn with a socket that others listen on too."""

    def __init__(self, kind: Kind, folder: Path, listener: socket.socket) -> None:
        self._shared = listener
        super().__init__(kind, folder)

    def _listen(self) -> socket.socket:
        return self._shared.dup()


class Stage:
    """A server, its broker, and the clients that read from it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._count = 0
        url = f"sqlite:///{folder / 'runs.db'}"
        self._gate = folder / "gate"
        self._kind = Kind(
            "sdk",
            gunicorn("--worker-class", "gthread", "--threads", "8", app="flask_app.sdk", config=HOOKS),
            environment={"BROKER": url, "GATE": str(self._gate)},
        )
        self.broker: Broker = self._stack.enter_context(open_broker(url))
        self.broker.queue_run(STORY)
        self._listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        self.server = self.start_server()

    def start_server(self) -> SharedServer:
        self._count += 1
        folder = self._folder / f"server{self._count}"
        folder.mkdir()
        server = SharedServer(self._kind, folder, self._listener)
        self._stack.callback(server.stop)
        return server

    def open_gate(self) -> None:
        self._gate.touch()

    def begin(self, client: Client, path: str | None = None, *, model: str = "m", **task: Any) -> ClientProcess:
        """Start a client: for its plain stream of this path, or for the story, or for an answer."""
        self._count += 1
        where = path or (f"/runs/{STORY}" if client.resumes else "/answers")
        process = ClientProcess(
            client.name,
            client.argv(),
            Task(f"http://127.0.0.1:{self.server.port}", where, "GET" if client.resumes else "POST", model, **task),
            self._folder / f"client{self._count}",
        )
        self._stack.callback(process.close)
        return process

    def begin_all(self, clients: Sequence[Client], **task: Any) -> dict[Client, ClientProcess]:
        """Start all clients; return when each has a word.

        A few at a time: most of them take a second of processor time until they are there.
        """
        processes: dict[Client, ClientProcess] = {}
        for client in clients:
            processes[client] = self.begin(client, **task)
            if len(processes) >= AT_A_TIME:
                wait_for_word(list(processes.values())[-AT_A_TIME])
        for process in processes.values():
            wait_for_word(process)
        return processes

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def words_of(process: ClientProcess) -> list[str]:
    return [each.data for each in process.seen() if each.type != "end" and each.type != "error"]


def wait_for_word(process: ClientProcess) -> None:
    process.wait_for(lambda: words_of(process))


def write(run: Run, words: Sequence[str]) -> None:
    for word in words:
        run.write(word)


def over(process: ClientProcess) -> dict[str, Any]:
    """Wait for the last report, and return it."""
    process.wait_for(process.ending)
    ending = process.ending()
    assert ending is not None
    return ending


def check_words(process: ClientProcess, words: Sequence[str]) -> Outcome:
    given = words_of(process)
    return {} if given == list(words) else {"words": f"gives {given} for {list(words)}"}


def check_whole(process: ClientProcess, words: Sequence[str] = WORDS) -> Outcome:
    """An answer, to its end."""
    kind = over(process)["kind"]
    return check_words(process, words) | ({} if kind == "end" else {"end": f"reports {process.ending()}"})


def check_error(process: ClientProcess) -> Outcome:
    """An answer that has broken off."""
    ending = over(process)
    given = words_of(process)
    found = {} if given == [f"word{number} " for number in range(len(given))] else {"words": f"gives {given}"}
    if ending["kind"] != "error":
        found["error"] = "takes it for the end"
    if SECRET in json.dumps(process.reports):
        found["secret"] = "gives the exception's text"
    return found


def check_story(process: ClientProcess, state: str, words: Sequence[str] = WORDS) -> Outcome:
    """A run, to its final event."""
    kind = over(process)["kind"]
    found = check_words(process, words)
    states = [json.loads(each.data)["state"] for each in process.seen() if each.type == "end"]
    if states != [state]:
        found["final event"] = f"gives {states}"
    if kind != "end":
        found["end"] = f"reports {process.ending()}"
    if SECRET in json.dumps(process.reports):
        found["secret"] = "gives the exception's text"
    return found


def whole(stage: Stage, clients: Sequence[Client]) -> dict[Client, Outcome]:
    with stage.broker.open_run(STORY) as story:
        write(story, WORDS[:3])
        processes = stage.begin_all(clients)
        write(story, WORDS[3:])
    return {
        client: check_story(process, "done") if client.resumes else check_whole(process)
        for client, process in processes.items()
    }


def error(stage: Stage, clients: Sequence[Client]) -> dict[Client, Outcome]:
    with contextlib.suppress(ValueError), stage.broker.open_run(STORY) as story:
        write(story, WORDS[:3])
        processes = stage.begin_all(clients, model="fail")
        raise ValueError(SECRET)
    return {
        client: check_story(process, "failed", WORDS[:3])
        if client.resumes
        else check_error(process) | check_words(process, WORDS[:3])
        for client, process in processes.items()
    }


def term(stage: Stage, clients: Sequence[Client]) -> dict[Client, Outcome]:
    answering = [client for client in clients if not client.resumes]
    with stage.broker.open_run(STORY) as story:
        write(story, WORDS[:3])
        endless = stage.begin_all(answering, model="endless", count=ENDLESS, options={"drain_timeout": 0.3})
        processes = stage.begin_all(clients, model="gated")
        stage.server.signal(signal.SIGTERM)
        first, stage.server = stage.server, stage.start_server()
        found = {client: check_error(process) for client, process in endless.items()}
        stage.open_gate()
        write(story, WORDS[3:])
    for client, process in processes.items():
        found[client] = found.get(client, {}) | (
            check_story(process, "done") if client.resumes else check_whole(process)
        )
    assert first.leaves()
    return found


def kill(stage: Stage, clients: Sequence[Client]) -> dict[Client, Outcome]:
    with stage.broker.open_run(STORY) as story:
        write(story, WORDS[:3])
        processes = stage.begin_all(clients, model="endless", count=ENDLESS)
        os.kill(stage.server.state()["pid"], signal.SIGKILL)
        write(story, WORDS[3:])
    return {
        client: check_story(process, "done") if client.resumes else check_error(process)
        for client, process in processes.items()
    }


def odd_data(stage: Stage, clients: Sequence[Client]) -> dict[Client, Outcome]:
    found: dict[Client, Outcome] = {}
    others = [client for client in clients if not client.plain]
    for client, process in stage.begin_all(others, model="odd", count=len(odd.TEXTS)).items():
        found[client] = check_whole(process, odd.TEXTS)
    for path, cases in (("/odd", odd.OURS), ("/foreign", odd.FOREIGN)):
        plain = [client for client in clients if client.plain]
        for client, process in stage.begin_all(plain, path=path).items():
            process.wait_for(lambda process=process: has_finished(process))  # type: ignore[misc]
            found[client] = found.get(client, {}) | dict(different(process, cases))
            process.close()
    return found


def has_finished(process: ClientProcess) -> bool:
    """Whether a client has read a stream of odd data as far as it can."""
    kinds = [each["kind"] for each in process.reports]
    return "reconnect" in kinds or process.ending() is not None or any(each.data == FINISHED for each in process.seen())


def different(process: ClientProcess, cases: list[Case]) -> Iterator[tuple[str, str]]:
    """The cases that a client gives something else for, and what that is."""
    seen = process.seen(1)
    given = odd.sort(seen, cases)
    broken = seen[-1].data[1:] if seen and FINISHED not in [each.data for each in seen] else None
    for case in cases:
        events = [each if case.ids else each._replace(id="") for each in given[case.name]]
        if events != list(case.means):
            gives = "gives " + (", ".join(map(shown, events)) or "nothing")
            yield case.name, gives + (f", and {how_it_broke(process)}" if case.name == broken else "")


def how_it_broke(process: ClientProcess) -> str:
    """How a client stopped to read before a stream's end."""
    ending = process.ending()
    return f"raises {ending['error']}" if ending and ending["kind"] == "error" else "reconnects"


def shown(seen: Seen) -> str:
    data = seen.data if len(seen.data) < 80 else f"{seen.data[:20]}… ({len(seen.data)} characters)"
    rest = ", ".join(f"{name}={value!r}" for name, value in (("type", seen.type), ("id", seen.id)) if value)
    return f"{data!r} ({rest})"


SCENARIOS: dict[str, Callable[[Stage, Sequence[Client]], dict[Client, Outcome]]] = {
    "whole": whole,
    "error": error,
    "term": term,
    "kill": kill,
    "odd": odd_data,
}


def go_through(name: str, clients: Sequence[Client], folder: Path) -> dict[Client, Outcome]:
    """Run a scenario with those of the clients that go through it.

    :return: how each client's results differ.
    """
    with Stage(folder) as stage:
        return SCENARIOS[name](stage, [client for client in clients if name in client.scenarios])
