"""Three levels of real gateways: what passes, and that the browser's leaving ends the origin."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ssesync import ConnectionLost, Reader
from ssesync.wire.encoder import KEEP_ALIVE, encode
from tests.apps.wsgi.relays import many
from tests.http_client import TIMEOUT, Connection
from tests.live.frameworks.kinds import Kind, Server
from tests.servers import gunicorn

from .conftest import OPENING

WORKERS = {"gthread": ["--worker-class", "gthread", "--threads", "8"], "gevent": ["--worker-class", "gevent"]}
#: The gateways of each worker, from the origin's to the browser's: every integration under both.
CHAINS = {"gthread": ("flask", "django", "bare"), "gevent": ("bare", "django", "flask")}


class Chain:
    """An origin and its gateways, each a process."""

    def __init__(self, worker: str, gateways: tuple[str, ...], folder: Path, keep_alive: str = "60") -> None:
        self.levels: list[Server] = []
        self._worker, self._folder, self._keep_alive = worker, folder, keep_alive
        try:
            for role in ("origin", *gateways):
                self._add(role)
        except BaseException:
            self.stop()
            raise

    def _add(self, role: str) -> None:
        upstream = f"http://127.0.0.1:{self.levels[-1].port}" if self.levels else ""
        variables = {"CHAIN_ROLE": role, "CHAIN_UPSTREAM": upstream, "CHAIN_KEEP_ALIVE": self._keep_alive}

        given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        command = gunicorn(*WORKERS[self._worker], *given, app="chain")
        folder = self._folder / f"{len(self.levels)}-{role}"
        folder.mkdir()
        self.levels.append(Server(Kind(role, command, apps=("chain",)), folder))

    @property
    def port(self) -> int:
        """Where the browser asks."""
        return self.levels[-1].port

    @property
    def origin(self) -> dict[str, Any]:
        return own(self.levels[0])

    def open(self, path: str) -> tuple[Connection, Any]:
        connection = Connection(self.port)
        response = connection.get(path)
        assert response.status == 200
        return connection, response

    def stop(self) -> None:
        for server in reversed(self.levels):
            server.stop()


def own(server: Server) -> dict[str, Any]:
    with Connection(server.port) as connection:
        answer: dict[str, Any] = json.loads(connection.get("/own").read())
        return answer


def wait_for(get: Callable[[], Any]) -> Any:
    end = time.monotonic() + TIMEOUT
    while not (result := get()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return result


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    chain = Chain(request.param, CHAINS[request.param], tmp_path_factory.mktemp("chain"))
    try:
        yield chain
    finally:
        chain.stop()


def test_the_browser_s_leaving_ends_the_origin_with_nothing_having_been_written(chain: Chain) -> None:
    took = []
    for _ in range(5):
        closed = len(chain.origin["closed"])
        connection, response = chain.open("/silent")
        received = b""
        while b"begun" not in received:
            received += response.piece()
        before = chain.origin["produced"]
        wait_for(lambda before=before: chain.origin["produced"] > before)
        left = time.monotonic()
        connection.close()
        end = wait_for(lambda closed=closed: chain.origin["closed"][closed:])
        assert [reason for reason, _ in end] == ["client_gone"]
        took.append(end[0][1] - left)
    # One clock for all processes of a machine.
    print(f"left to ended at the origin: {', '.join(f'{1000 * seconds:.1f}' for seconds in took)} ms")
    # Loose, as the machine may have other things to do: the next keep-alive would be written in a minute.
    assert statistics.median(took) < 10

    def stands_still() -> bool:
        counted = chain.origin["produced"]
        time.sleep(0.3)
        return bool(chain.origin["produced"] == counted)

    wait_for(stands_still)
    for level in chain.levels:
        state = wait_for(lambda level=level: (state := own(level)) and not state["streams"]["streams"] and state)
        assert set(state["streams"]["closed"]) <= {"client_gone", "done"}
        assert state["streams"]["keep_alives"] == 0
        assert "Traceback" not in level.log()


def test_bytes_pass_three_gateways_as_they_are(chain: Chain) -> None:
    connection, response = chain.open("/many")
    with connection:
        assert response.read() == OPENING * len(chain.levels) + b"".join(map(encode, many()))


def test_an_error_of_the_origin_reaches_the_browser_as_such(chain: Chain) -> None:
    answer = requests.get(f"http://127.0.0.1:{chain.port}/closed", timeout=TIMEOUT)
    assert (answer.status_code, answer.json()) == (401, {"error": "no key"})


@pytest.mark.timeout(900)
def test_200_browsers_that_open_and_leave_leave_nothing_at_any_level(chain: Chain) -> None:
    def at_rest() -> list[int]:
        return [wait_for(lambda level=level: (state := own(level)) and not state["streams"]["streams"] and state)
                for level in chain.levels]  # fmt: skip

    def cycle(count: int) -> list[int]:
        for number in range(count):
            connection, response = chain.open("/silent")
            with connection:
                received = b""
                while b"begun" not in received:
                    received += response.piece()
            if number % 5 == 4:
                at_rest()  # more than there are threads for would be refused, where their ends take their time
        return at_rest()

    before = cycle(10)
    after = cycle(200)
    for old, new, level in zip(before, after, chain.levels, strict=True):
        assert new["descriptors"] <= old["descriptors"] + 4, level.kind.name
        assert new["threads"] <= old["threads"] + 8, level.kind.name  # the server's pool may have grown
        assert new["streams"]["opened"] == sum(new["streams"]["closed"].values())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Chain]]:
    with ExitStack() as stack:

        def start(worker: str, gateways: tuple[str, ...], **options: Any) -> Chain:
            chain = Chain(worker, gateways, tmp_path, **options)
            stack.callback(chain.stop)
            return chain

        yield start


@pytest.mark.parametrize("worker", WORKERS)
def test_an_idle_origin_is_kept_alive_by_its_gateways(worker: str, start: Callable[..., Chain]) -> None:
    chain = start(worker, ("flask",), keep_alive="0.2")
    connection, response = chain.open("/silent")
    with connection:
        received = b""
        while received.count(KEEP_ALIVE) < 5:
            received += response.piece()
    assert received.replace(KEEP_ALIVE, b"") == OPENING * 2 + b"data: begun\n\n"


@pytest.mark.parametrize("worker", WORKERS)
def test_a_killed_origin_ends_the_browsers_stream_with_an_error_event(worker: str, start: Callable[..., Chain]) -> None:
    chain = start(worker, ("flask", "django"))
    with requests.get(f"http://127.0.0.1:{chain.port}/silent", stream=True, timeout=TIMEOUT) as response:
        reader = Reader(response)
        first = reader.read()
        assert first is not None
        assert first.data == "begun"
        origin = chain.levels[0].process
        # The worker is the arbiter's child, and holds the connection.
        for process in (*psutil.Process(origin.pid).children(), psutil.Process(origin.pid)):
            process.kill()
        # Each gateway's upstream breaks off: each adds an error event, and its own answer is incomplete.
        for _ in chain.levels[1:]:
            error = reader.read()
            assert error is not None
            assert error.type == "error"
        with pytest.raises(ConnectionLost):
            reader.read()
    for gateway in chain.levels[1:]:
        assert gateway.logs("ConnectionLost")
