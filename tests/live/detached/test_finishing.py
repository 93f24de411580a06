"""gunicorn's workers let detached answers finish, however they end, with our hooks and without."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.logs import show_if_failed
from tests.servers import GTHREAD, SYNC, Kind, Server, eventually

from .finishing import EVENTS

ANSWERS = 50
GRACE = 40
HOOKS = "python:ssesync.gunicorn"
REST = [*map(str, range(EVENTS)), "done"]
KINDS = {"gthread": GTHREAD, "sync": SYNC}


class Answering(Server):
    """A running gunicorn with the application of answers."""

    ready = ("/", None)

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.go = folder / "go"
        super().__init__(kind, folder)

    def pid(self) -> int:
        """The worker that answers."""
        return int(self.fetch("/"))

    def begin(self, count: int, *targets: str) -> contextlib.ExitStack:
        """Begin answers, and wait until each has its first event."""
        self.answers = []
        stack = contextlib.ExitStack()
        for _, target in zip(range(count), itertools.cycle(targets), strict=False):
            wire = stack.enter_context(self.connect())
            if target == "/subscription":
                self.answers.append(wire.get(target))
                self.answers[-1].expect(b":ok\n")
            else:
                self.answers.append(wire.request("POST", target, Content_Length="0"))
                self.answers[-1].expect(b":ok\ndata: begun\n\n")
        return stack

    def finish(self) -> None:
        """Let all go on, and fail unless each is complete."""
        self.go.touch()
        for answer in self.answers:
            body = answer.read()
            assert answer.end == "last chunk"
            assert re.findall(rb"data: (\w+)\n\n", body) == [each.encode() for each in REST]


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Answering]]:
    """Starts a gunicorn that lasts as long as the test."""
    started: list[Answering] = []

    def give(worker: str, *options: str, hooks: bool = False, **environment: str) -> Answering:
        grace = ("--graceful-timeout", str(GRACE), "--timeout", "30", "--no-control-socket")
        command = servers.gunicorn(
            *KINDS[worker], *grace, *options, app="tests.live.detached.finishing:application",
            config=HOOKS if hooks else servers.SETTINGS,
        )  # fmt: skip
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Answering(Kind(worker, command, environment=environment), folder))
        show_if_failed(request.node, worker, started[-1].log)
        return started[-1]

    yield give
    for server in started:
        server.go.touch()
        server.stop()


def exits(server: Server, pid: int) -> bool:
    """Whether a worker has come to its end, which it waits at."""
    return server.logs(f"Worker exiting (pid: {pid})")


def is_gone(pid: int) -> bool:
    return eventually(lambda: not Path(f"/proc/{pid}").exists())


everywhere = pytest.mark.parametrize(
    ("worker", "hooks"),
    [pytest.param(worker, hooks, id=f"{worker}{', hooks' * hooks}") for worker in KINDS for hooks in (False, True)],
)
SOURCES = ["/subscription"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
@everywhere
def test_all_answers_in_progress_finish(
    start: Callable[..., Answering], worker: str, hooks: bool, signum: signal.Signals, source: str
) -> None:
    server = start(worker, hooks=hooks)
    pid = server.pid()
    with server.begin(ANSWERS, source):
        server.signal(signum)
        assert exits(server, pid)
        server.finish()
    assert is_gone(pid)
    if signum == signal.SIGHUP:
        assert server.pid() != pid
    else:
        assert server.leaves()
        assert server.process.returncode == 0


@pytest.mark.parametrize("source", SOURCES)
@everywhere
def test_the_answers_of_a_worker_that_has_had_its_requests_finish_while_another_one_answers(
    start: Callable[..., Answering], worker: str, hooks: bool, source: str
) -> None:
    server = start(worker, "--timeout", "3", "--max-requests", "70", hooks=hooks)
    pid = server.pid()
    with server.begin(ANSWERS, source):
        while server.pid() == pid:
            pass
        another = server.pid()
        time.sleep(7)  # twice the time after which the arbiter kills a worker that it does not hear of
        server.finish()
        assert is_gone(pid)
        assert server.pid() == another
    assert server.log().count("Booting worker") == 2
    assert "Handling signal: ttin" in server.log()
    assert "Handling signal: ttou" in server.log()
    assert "WORKER TIMEOUT" not in server.log()


@pytest.mark.parametrize("source", SOURCES)
def test_after_a_reload_in_between_there_are_as_many_workers_as_are_configured(
    start: Callable[..., Answering], source: str
) -> None:
    server = start("gthread", "--max-requests", "10")
    pid = server.pid()
    with server.begin(5, source):
        while server.pid() == pid:
            pass
        server.signal(signal.SIGHUP)
        assert server.logs("Handling signal: hup")
        server.finish()
        assert is_gone(pid)
    assert eventually(lambda: len(children(server)) == 1)
    assert "Handling signal: ttou" not in server.log()


def children(server: Server) -> list[int]:
    """The workers that there are."""
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(each) for each in text.split()]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGINT], ids=lambda signum: signum.name)
@everywhere
def test_a_quick_stop_waits_for_no_answer(
    start: Callable[..., Answering], worker: str, hooks: bool, signum: signal.Signals, source: str
) -> None:
    server = start(worker, hooks=hooks)
    with server.begin(5, source):
        server.signal(signum)
        assert server.leaves(within=GRACE / 2)
    assert not server.go.exists()


@pytest.mark.parametrize("source", SOURCES)
@everywhere
def test_a_second_sigterm_makes_the_time_neither_longer_nor_shorter(
    start: Callable[..., Answering], worker: str, hooks: bool, source: str
) -> None:
    server = start(worker, hooks=hooks)
    pid = server.pid()
    with server.begin(5, source):
        server.signal(signal.SIGTERM)
        assert exits(server, pid)
        for _ in range(3):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        server.finish()
    assert server.leaves()
    assert server.process.returncode == 0
