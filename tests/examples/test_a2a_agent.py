"""The A2A example under gunicorn with two workers, used by the official client and by raw requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from ssesync import Reader, open_broker
from tests.later import ImportedLater

from .started import EXAMPLES, environment, run

if TYPE_CHECKING:
    import a2a.client as a2a
    import a2a.types as types
    import a2a.utils.errors as errors
    import httpx
else:
    a2a, types, errors, httpx = map(ImportedLater, ("a2a.client", "a2a.types", "a2a.utils.errors", "httpx"))

TIMEOUT = 90.0
#: Longer than any test: the tests end their tasks.
LONG = "count to 20000"
FOLDER = EXAMPLES / "a2a_agent"
#: Each worker has an address of its own, so that a test chooses the worker. One that is begun anew has the first.
CONFIG = """
exec(open({conf!r}).read())
bind = {bind!r}
_post_fork = globals().get("post_fork", lambda server, worker: None)


def post_fork(server, worker):
    worker.sockets = [worker.sockets[worker.age == 2]]
    _post_fork(server, worker)
"""


@dataclass
class Agent:
    """The agent, by the addresses of its two workers."""

    urls: tuple[str, str]
    folder: Path

    def worker_of(self, task: str) -> int:
        """The process that makes a task."""
        with open_broker(f"sqlite:///{self.folder / 'tasks.sqlite3'}") as broker:
            record = broker._find_run(f"task:{task}:1")
        assert record is not None
        return int(record.owner.split("-")[0])


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("a2a_agent")
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        fds = [each.fileno() for each in listeners]
        config = folder / "gunicorn.conf.py"
        config.write_text(CONFIG.format(conf=str(FOLDER / "gunicorn.conf.py"), bind=[f"fd://{fd}" for fd in fds]))
        first, second = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in listeners)
        command = [sys.executable, "-m", "gunicorn", "--config", str(config), "--chdir", str(FOLDER), "wsgi"]
        variables = {"AGENT_FOLDER": str(folder), "PAUSE": "0.01"}
        stack.enter_context(run(command, "a2a_agent", first, folder, pass_fds=fds, **variables))
        yield Agent((first, second), folder)


@contextlib.asynccontextmanager
async def connected(url: str, **config: Any) -> AsyncIterator[a2a.Client]:
    """The official client, with connections of its own."""
    async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as http:
        yield await a2a.create_client(url, a2a.ClientConfig(httpx_client=http, **config))


def message(text: str) -> Any:
    parts = [types.Part(text=text)]
    return types.SendMessageRequest(
        message=types.Message(message_id=str(uuid.uuid4()), role=types.Role.ROLE_USER, parts=parts)
    )


def state_of(task: Any) -> str:
    return types.TaskState.Name(task.status.state).removeprefix("TASK_STATE_")


def text_of(task: Any) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


def counted(to: int) -> list[str]:
    return [f"{number} " for number in range(1, to + 1)]


@dataclass
class Follower:
    """What a client has received of a task."""

    stream: AsyncIterator[Any]
    task: str = ""
    states: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    async def read(self, pieces: int | None = None) -> None:
        """Read until there are so many pieces, or to the end."""
        while pieces is None or len(self.pieces) < pieces:
            try:
                event = await anext(self.stream)
            except StopAsyncIteration:
                assert pieces is None, self
                return
            kind = event.WhichOneof("payload")
            if kind == "artifact_update":
                update = event.artifact_update
                assert update.append is bool(self.pieces)
                self.pieces += [part.text for part in update.artifact.parts]
            else:
                assert kind == ("status_update" if self.task else "task")
                self.task = self.task or event.task.id
                self.states.append(state_of(getattr(event, kind)))


def use(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, TIMEOUT))


def test_a_task_is_followed_to_its_end_and_kept(agent: Agent) -> None:
    async def scenario() -> None:
        async with connected(agent.urls[0]) as client:
            follower = Follower(client.send_message(message("count to 5")))
            await follower.read()
            assert follower.states == ["SUBMITTED", "WORKING", "COMPLETED"]
            assert follower.pieces == counted(5)
        async with connected(agent.urls[1]) as client:
            task = await client.get_task(types.GetTaskRequest(id=follower.task))
            assert (state_of(task), text_of(task), len(task.history)) == ("COMPLETED", "1 2 3 4 5 ", 1)
            task = await client.get_task(types.GetTaskRequest(id=follower.task, history_length=0))
            assert not task.history
            with pytest.raises(errors.UnsupportedOperationError):
                await anext(client.subscribe(types.SubscribeToTaskRequest(id=follower.task)))
            with pytest.raises(errors.TaskNotCancelableError):
                await client.cancel_task(types.CancelTaskRequest(id=follower.task))

    use(scenario())


def test_a_client_without_streaming_waits_for_the_task_or_asks_for_it(agent: Agent) -> None:
    async def scenario() -> None:
        async with connected(agent.urls[0], streaming=False) as client:
            answer = await anext(client.send_message(message("Hello!")))
            assert (state_of(answer.task), text_of(answer.task)) == ("COMPLETED", "You said: Hello! ")
        async with connected(agent.urls[0], streaming=False, polling=True) as client:
            answer = await anext(client.send_message(message(LONG)))
            assert state_of(answer.task) == "WORKING"
            canceled = await client.cancel_task(types.CancelTaskRequest(id=answer.task.id))
            assert state_of(canceled) == "CANCELED"

    use(scenario())


def test_a_task_is_followed_and_canceled_by_way_of_another_worker(agent: Agent) -> None:
    async def scenario() -> None:
        async with connected(agent.urls[0]) as client, connected(agent.urls[1]) as other:
            first = Follower(client.send_message(message(LONG)))
            await first.read(5)
            second = Follower(other.subscribe(types.SubscribeToTaskRequest(id=first.task)))
            await second.read(20)
            canceled = await other.cancel_task(types.CancelTaskRequest(id=first.task))
            await asyncio.gather(first.read(), second.read())
            assert first.states == second.states == ["SUBMITTED", "WORKING", "CANCELED"]
            assert first.pieces == second.pieces == counted(len(first.pieces))
            assert state_of(canceled) == "CANCELED"
            assert text_of(canceled) == "".join(first.pieces)

    use(scenario())


def test_a_killed_worker_s_task_is_begun_anew_by_the_other_one(agent: Agent) -> None:
    async def scenario() -> None:
        async with connected(agent.urls[0]) as client, connected(agent.urls[1]) as other:
            broken = Follower(client.send_message(message(LONG)))
            await broken.read(5)
            task = types.SubscribeToTaskRequest(id=broken.task)
            follower = Follower(other.subscribe(task))
            await follower.read(5)
            worker = agent.worker_of(broken.task)
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(a2a.A2AClientError):
                await broken.read()
            await follower.read()
            assert follower.states == ["SUBMITTED", "WORKING", "SUBMITTED"]
            assert follower.pieces == counted(len(follower.pieces))
            again = Follower(other.subscribe(task))
            await again.read(5)
            assert again.task == broken.task
            assert again.pieces == counted(5)
            await other.cancel_task(types.CancelTaskRequest(id=broken.task))
            await again.read()
            assert again.states == ["SUBMITTED", "WORKING", "CANCELED"]

    use(scenario())


def post(url: str, body: Any, **headers: str) -> requests.Response:
    own = {"Content-Type": "application/json", "A2A-Version": "1.0", "Accept": "*/*"}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    with requests.Session() as http:
        http.trust_env = False
        data = body if isinstance(body, str) else json.dumps(body)
        return http.post(f"{url}/a2a", data, headers=own, stream=True, timeout=TIMEOUT)


def rpc(method: str, id: Any = 1, /, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def test_a_client_that_sends_the_last_event_s_id_gets_what_comes_after_it(agent: Agent) -> None:
    begun = rpc("SendStreamingMessage", message={"messageId": "1", "role": "ROLE_USER", "parts": [{"text": LONG}]})
    with post(agent.urls[0], begun) as answer, Reader(answer) as reader:
        events = [reader.read() for _ in range(5)]
    task = events[0].json()["result"]["task"]["id"]
    subscribe = rpc("SubscribeToTask", "again", id=task)
    with post(agent.urls[1], subscribe, Last_Event_ID=events[-1].id) as answer, Reader(answer) as reader:
        following = [reader.read().json() for _ in range(5)]
        canceled = post(agent.urls[1], rpc("CancelTask", id=task)).json()["result"]
        *_, last = reader
    texts = [each["result"]["artifactUpdate"]["artifact"]["parts"][0]["text"] for each in following]
    assert texts == counted(8)[3:]
    assert {each["id"] for each in following} == {last.json()["id"]} == {"again"}
    assert last.json()["result"]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
    # After the end the rest is still there. An id of another task's event is of no use.
    with post(agent.urls[0], subscribe, Last_Event_ID=events[-1].id) as answer, Reader(answer) as reader:
        assert reader.read().json() == following[0]
    assert post(agent.urls[0], subscribe, Last_Event_ID="e-1").json()["error"]["code"] == -32004


GET = rpc("GetTask", id=str(uuid.uuid4()))
PARTS = [{"text": "x"}]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ("{", {}, 200, -32700),
        ("[" * 100_000, {}, 200, -32700),
        (json.dumps({**GET, "id": "\ud800"}), {}, 200, -32700),
        ([GET], {}, 200, -32600),
        ({**GET, "id": None}, {}, 200, -32600),
        ({**GET, "id": 101 * "x"}, {}, 200, -32600),
        ({**GET, "id": 10**100}, {}, 200, -32600),
        ({**GET, "params": []}, {}, 200, -32600),
        ('"' + 2**20 * "x" + '"', {}, 413, -32600),
        (GET, {"Content_Type": "text/plain"}, 415, -32600),
        (GET, {"Accept": "text/event-stream"}, 406, -32600),
        (rpc("SubscribeToTask", id="x"), {"Accept": "application/json"}, 406, -32600),
        (GET, {"A2A_Version": "0.3"}, 200, -32009),
        (rpc("tasks/get", id="x"), {}, 200, -32601),
        (GET, {}, 200, -32001),
        (rpc("GetTask", id=["x"]), {}, 200, -32001),
        (rpc("CancelTask"), {}, 200, -32001),
        (rpc("SubscribeToTask", id="*"), {}, 200, -32001),
        (rpc("ListTasks"), {}, 200, -32004),
        (rpc("CreateTaskPushNotificationConfig"), {}, 200, -32003),
        (rpc("SendMessage"), {}, 200, -32602),
        (rpc("SendStreamingMessage", message={"messageId": "1", "parts": []}), {}, 200, -32602),
        (rpc("SendMessage", message={"messageId": 101 * "x", "parts": PARTS}), {}, 200, -32602),
        (rpc("SendMessage", message={"messageId": "1", "parts": PARTS, "contextId": 101 * "x"}), {}, 200, -32602),
        (rpc("SendMessage", message={"messageId": "1", "parts": [{"url": "x"}]}), {}, 200, -32005),
        (rpc("SendMessage", message={"messageId": "1", "parts": PARTS, "taskId": "x"}), {}, 200, -32001),
    ],
)
def test_a_wrong_request_gets_the_protocol_s_error(
    agent: Agent, body: Any, headers: dict[str, str], status: int, code: int
) -> None:
    answer = post(agent.urls[0], body, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_only_the_hosts_of_the_settings_are_served(agent: Agent) -> None:
    """A page of another site whose name leads to this machine may send any type of content."""
    for path, method in (("a2a", "POST"), (".well-known/agent-card.json", "GET")):
        with requests.Session() as http:
            http.trust_env = False
            headers = {"Host": "other.example", "Content-Type": "application/json", "A2A-Version": "1.0"}
            answer = http.request(method, f"{agent.urls[0]}/{path}", json=GET, headers=headers, timeout=TIMEOUT)
        assert answer.status_code == 400


READ = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django
django.setup()
import tasks
from ssesync import BrokerUnavailable
from ssesync_django import get_broker

broker = get_broker()
run = tasks.begin({"messageId": "1", "parts": [{"text": 300 * "x "}]}, "c")
assert run.wait(90)
read, pages = broker.read, []

def fail_once(*args):
    pages.append(args)
    if len(pages) == 2:
        raise BrokerUnavailable("away")
    return read(*args)

broker.read = fail_once
task = tasks.read(run)
print(json.dumps([len(task["artifacts"][0]["parts"][0]["text"].split()), task["status"]["state"]]))
"""


def test_a_task_that_has_ended_is_read_whole_though_the_log_is_away_for_a_moment(tmp_path: Path) -> None:
    variables = {"AGENT_FOLDER": str(tmp_path), "PAUSE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=FOLDER, env=environment(**variables), capture_output=True, timeout=TIMEOUT
    )
    assert json.loads(done.stdout or "null") == [302, "TASK_STATE_COMPLETED"], done.stderr.decode()


def test_the_client_of_the_example_runs(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(FOLDER / "client.py"))["main"]
    use(main("count to 5", agent.urls[0]))
    assert capsys.readouterr().out.endswith("WORKING\n1 2 3 4 5 \nstatus_update COMPLETED\n")
