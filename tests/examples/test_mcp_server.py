"""The MCP example under gunicorn, used by the official client in both versions of the protocol, and by raw requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import runpy
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests

from ssesync import Reader, ReadError
from tests.later import ImportedLater
from tests.sdk.nodes import run_node

from .started import EXAMPLES, Server, run

if TYPE_CHECKING:
    import mcp
else:
    mcp = ImportedLater("mcp")

TIMEOUT = 90.0
#: Raw listeners, on a worker with four threads.
CROWD = 100
META = "io.modelcontextprotocol/"
ENVELOPE = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {}}
ACCEPT = "application/json, text/event-stream"
FOLDER = EXAMPLES / "mcp_server"


#: The example with a tool that works until its call is cancelled, and then writes so into a file.
WITH_ENDLESS_TOOL = """
import itertools, pathlib, time
from app import *
from app import tools
from tools import Tool

def work(path: str):
    "Work."
    try:
        for number in itertools.count(1):
            time.sleep(0.01)
            yield number, 0
    finally:
        pathlib.Path(path).write_text("cancelled")

tools["work"] = Tool(work)
"""


@contextlib.contextmanager
def serving(folder: Path, app: str = "app:create_app()", *options: str) -> Iterator[Server]:
    """The example as its README starts it, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "gunicorn", "--config", str(FOLDER / "gunicorn.conf.py")]
        command += ["--chdir", str(FOLDER), "--bind", f"fd://{listener.fileno()}", *options, app]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        with run(command, "mcp_server", url, folder, pass_fds=[listener.fileno()]) as server:
            listener.close()
            yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("mcp_server")) as server:
        yield server


def send(server: Server, message: Any, session: str = "", *, method: str = "POST", **headers: str) -> requests.Response:
    """Send one request, whose answer is read as it comes."""
    own = {"Accept": ACCEPT, "Mcp-Session-Id": session, **{n.replace("_", "-"): v for n, v in headers.items()}}
    own = {name: value for name, value in own.items() if value}
    body = message if isinstance(message, str) else json.dumps(message)
    if method == "POST":
        own.setdefault("Content-Type", "application/json")
    with requests.Session() as http:
        http.trust_env = False
        http.headers.clear()
        return http.request(
            method, server.url, data=body if method == "POST" else None, headers=own, stream=True, timeout=TIMEOUT
        )


def rpc(method: str, id: int | str = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def call(name: str, id: int | str = 1, /, **arguments: Any) -> dict[str, Any]:
    return rpc("tools/call", id, name=name, arguments=arguments, _meta={"progressToken": "p"})


def stateless(server: Server, method: str, id: int | str = 1, **params: Any) -> requests.Response:
    """A request of the version 2026-07-28."""
    names = {"Mcp_Name": params["name"]} if "name" in params else {}
    message = rpc(method, id, **params, _meta=ENVELOPE)
    return send(server, message, MCP_Protocol_Version="2026-07-28", Mcp_Method=method, **names)


def await_file(path: Path) -> None:
    until = time.monotonic() + TIMEOUT
    while not path.exists():
        assert time.monotonic() < until, f"{path} was not written"
        time.sleep(0.01)


def begin(server: Server) -> str:
    """A new session of the version 2025-11-25."""
    answer = send(server, rpc("initialize", protocolVersion="2025-11-25", capabilities={}))
    assert answer.json()["result"]["protocolVersion"] == "2025-11-25"
    session = answer.headers["Mcp-Session-Id"]
    assert send(server, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session).status_code == 202
    return session


def follow(server: Server, session: str, last_event_id: str | None = None) -> requests.Response:
    return send(server, None, session, method="GET", Accept="text/event-stream", Last_Event_ID=last_event_id or "")


def messages(response: requests.Response) -> Iterator[Any]:
    """The messages of a stream to its end, without what is no message."""
    with response, Reader(response) as reader:
        yield from (event.json() for event in reader if event.type == "message" and event.data)


def take(reader: Reader) -> Any:
    event = reader.read()
    assert event is not None
    assert event.type == "message"
    return event.json()


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_official_client_calls_tools_with_progress_and_reads_resources(
    server: Server, mode: str, version: str
) -> None:
    async def use() -> None:
        steps: list[tuple[float, float | None]] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            steps.append((done, total))

        async with mcp.Client(server.url, mode=mode) as client:
            assert client.session.protocol_version == version
            assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "count", "write_note"]
            assert text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
            counted = await client.call_tool("count", {"to": 4, "pause": 0.01}, progress_callback=progress)
            assert text(counted) == "Counted to 4."
            assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
            for name, arguments in (("count", {"to": 0}), ("add", {"a": 1}), ("add", {"a": 1, "b": "2"})):
                assert (await client.call_tool(name, arguments)).is_error
            await client.call_tool("write_note", {"name": mode, "text": "Hello"})
            assert f"note:{mode}" in [str(note.uri) for note in (await client.list_resources()).resources]
            [note] = (await client.read_resource(f"note:{mode}")).contents
            assert note.model_dump()["text"] == "Hello"
            with pytest.raises(mcp.MCPError, match="There is no such tool"):
                await client.call_tool("missing")
            with pytest.raises(mcp.MCPError, match="There is no such resource"):
                await client.read_resource("note:missing")
            with pytest.raises(mcp.MCPError, match="Method not found"):
                await client.get_prompt("missing")

    asyncio.run(asyncio.wait_for(use(), TIMEOUT))


def text(result: Any) -> str:
    assert not result.is_error
    return str(result.content[0].text)


def test_the_official_client_cancels_a_tool_and_listens_until_the_server_stops(tmp_path: Path) -> None:
    async def cancel(client: mcp.Client) -> None:
        """In 2026-07-28 a client cancels a call by closing the connection."""
        began, file = asyncio.Event(), tmp_path / "cancelled"

        async def progress(done: float, total: float | None, message: str | None) -> None:
            began.set()

        call = asyncio.create_task(client.call_tool("work", {"path": str(file)}, progress_callback=progress))
        await began.wait()
        assert not file.exists()
        call.cancel()
        while not file.exists():
            await asyncio.sleep(0.02)

    async def use(server: Server) -> None:
        async with mcp.Client(server.url) as client, mcp.Client(server.url) as other:
            await cancel(other)
            wanted = ["note:welcome", "note:missing"]
            listening = client.listen(
                resources_list_changed=True, tools_list_changed=True, resource_subscriptions=wanted
            )
            async with listening as subscription:
                honored = subscription.honored.model_dump(exclude_none=True)
                assert honored == {"resources_list_changed": True, "resource_subscriptions": ["note:welcome"]}
                for name in ("welcome", "second"):
                    await other.call_tool("write_note", {"name": name, "text": "Hello"})
                events = [await anext(subscription) for _ in range(2)]
                assert [type(event).__name__ for event in events] == ["ResourceUpdated", "ResourcesListChanged"]
                server.process.send_signal(signal.SIGTERM)
                # By the subscription's result, which the server sends last. Without one this raises SubscriptionLost.
                assert [event async for event in subscription] == []

    (tmp_path / "extended.py").write_text(WITH_ENDLESS_TOOL)
    options = ["--pythonpath", str(tmp_path), "--graceful-timeout", "3"]
    with serving(tmp_path, "extended:create_app()", *options) as server:
        # The calls of a session end with it.
        session = begin(server)
        with send(server, call("work", path=str(tmp_path / "stopped")), session) as answer, Reader(answer) as reader:
            assert reader.read() is not None
            take(reader)
            assert send(server, None, session, method="DELETE").status_code == 204
        await_file(tmp_path / "stopped")
        # A call of a session, which does not end before the server does.
        answer = send(server, call("work", "endless", path=str(tmp_path / "interrupted")), begin(server))
        asyncio.run(asyncio.wait_for(use(server), TIMEOUT))
        received = []
        with contextlib.suppress(ReadError):  # whether the run or the stream was ended first
            received.extend(messages(answer))  # keeps those before the exception
        assert received[-1]["id"] == "endless"
        assert received[-1]["error"]["message"] == "The server ended the call early."
        assert server.process.wait(TIMEOUT) == 0


def test_the_official_client_gets_the_notifications_of_its_session(server: Server) -> None:
    async def use() -> None:
        received = asyncio.Event()

        async def handle(message: Any) -> None:
            if getattr(message, "method", "") == "notifications/resources/list_changed":
                received.set()

        async with mcp.Client(server.url, mode="legacy", message_handler=handle) as client:
            for number in range(1000):  # the client opens its stream at some time
                await client.call_tool("write_note", {"name": f"session{number}", "text": ""})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(received.wait(), 0.1)
                    return
            pytest.fail("no notification came")

    asyncio.run(asyncio.wait_for(use(), TIMEOUT))


def test_a_hundred_listeners_on_four_threads_get_each_event_once(server: Server) -> None:
    ids: list[int | str] = [number if number % 2 else f"listener {number}" for number in range(CROWD)]
    with contextlib.ExitStack() as stack:
        readers = []
        for id in ids:
            response = stack.enter_context(
                stateless(server, "subscriptions/listen", id, notifications={"resourceSubscriptions": ["note:welcome"]})
            )
            readers.append(stack.enter_context(Reader(response)))
            first = take(readers[-1])
            assert first["method"] == "notifications/subscriptions/acknowledged"
            assert first["params"] == {
                "notifications": {"resourceSubscriptions": ["note:welcome"]},
                "_meta": {f"{META}subscriptionId": id},
            }
        [worker] = psutil.Process(server.process.pid).children()
        assert worker.num_threads() < 20
        # The second is for none of them, the other two for all.
        for name in ("welcome", "other", "welcome"):
            stateless(server, "tools/call", name="write_note", arguments={"name": name, "text": ""}).close()
        events = []
        for id, reader in zip(ids, readers, strict=True):
            notification = {
                "jsonrpc": "2.0",
                "method": "notifications/resources/updated",
                "params": {"_meta": {f"{META}subscriptionId": id}, "uri": "note:welcome"},
            }
            assert [take(reader), take(reader)] == [notification, notification]
            events.append(reader.last_event_id)
        # All have had the same number of events, as the ids of the last are the same.
        assert len(set(events)) == 1


def test_a_call_goes_on_when_its_connection_is_lost_and_is_resumed_by_an_id_alone(server: Server) -> None:
    session, other = begin(server), begin(server)
    answer = send(server, call("count", to=20, pause=0.02), session)
    with answer, Reader(answer) as reader:
        first = reader.read()
        assert first is not None
        assert (first.data, bool(first.id)) == ("", True)
        assert [take(reader)["params"]["progress"] for _ in range(3)] == [1, 2, 3]
        last = reader.last_event_id
    *steps, end = messages(follow(server, session, last))
    assert [step["params"]["progress"] for step in steps] == list(range(4, 21))
    assert (end["id"], end["result"]["content"][0]["text"]) == (1, "Counted to 20.")
    assert len(list(messages(follow(server, session, first.id)))) == 21
    assert follow(server, other, last).status_code == 404


@contextlib.asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """A TCP relay to a port, and a function that cuts all of its connections, and returns how many halves it cut."""
    writers: set[asyncio.StreamWriter] = set()
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()
        writers.discard(writer)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.update((writer, upstream_writer))
        for source, sink in ((reader, upstream_writer), (upstream_reader, writer)):
            tasks.add(asyncio.create_task(pass_on(source, sink)))

    def cut() -> int:
        for writer in list(writers):
            writer.transport.abort()
        return len(writers)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        server.close()
        cut()
        await asyncio.gather(*tasks)


def test_the_official_client_resumes_a_call_whose_connection_is_cut(server: Server) -> None:
    async def use() -> None:
        steps: list[float] = []
        halves: list[int] = []
        async with relay(int(server.url.rpartition(":")[2].removesuffix("/mcp"))) as (port, cut):

            async def progress(done: float, total: float | None, message: str | None) -> None:
                steps.append(done)
                if done == 3:
                    halves.append(cut())

            async with mcp.Client(f"http://127.0.0.1:{port}/mcp", mode="legacy") as client:
                counted = await client.call_tool("count", {"to": 20, "pause": 0.02}, progress_callback=progress)
                assert text(counted) == "Counted to 20."
        assert steps == list(range(1, 21))
        assert halves[0] >= 2

    asyncio.run(asyncio.wait_for(use(), TIMEOUT))


def test_the_official_client_for_javascript(server: Server) -> None:
    with run_node("mcp.mjs", server.url) as script:
        lines = []
        while not lines or lines[-1]["step"] != "end":
            lines.append(script.read())
    counted = "Counted to 20."
    assert lines == [
        {"step": "connected", "protocol": "2025-11-25", "server": "ssesync-example"},
        {"step": "tools", "names": ["add", "count", "write_note"]},
        {"step": "add", "text": "3"},
        {"step": "unknown", "code": -32602},
        {"step": "count", "text": "Counted to 4.", "steps": [1, 2, 3, 4]},
        {"step": "cut", "text": counted, "steps": list(range(1, 21))},
        {"step": "notified", "changes": 4, "written": 4},
        {"step": "resumed", "text": counted},
        {"step": "same id", "text": "Counted to 2."},
        {"step": "cancelled", "message": "MCP error -32001: enough", "statuses": ["GET 204", "POST 200", "POST 202"]},
        {"step": "terminated", "answer": ["DELETE", None, 204], "code": 404},
        {"step": "end"},
    ]


def test_a_call_of_a_session_is_cancelled_by_a_notification(server: Server) -> None:
    session = begin(server)
    answer = send(server, call("count", "a", to=10_000, pause=0.02), session)
    with answer, Reader(answer) as reader:
        reader.read()
        take(reader)
        for id in ("unknown", "a"):
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}
            assert send(server, cancel, session).status_code == 202
        *_, end = reader
    assert (end.type, end.json()["state"]) == ("end", "stopped")


def test_a_session_has_one_stream_which_ends_with_it(server: Server) -> None:
    session = begin(server)
    first = follow(server, session)
    second = follow(server, session)
    assert list(messages(first)) == []
    written = send(server, call("write_note", name="one", text=""), session)
    assert written.json()["result"]["isError"] is False
    with second, Reader(second) as reader:
        assert take(reader)["method"] == "notifications/resources/list_changed"
        last = reader.last_event_id
        assert send(server, None, session, method="DELETE").status_code == 204
        assert list(reader) == []
    for answer in (follow(server, session, last), send(server, rpc("ping"), session)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32600)


def test_notifications_that_a_session_missed_are_sent_when_it_comes_back(server: Server) -> None:
    session = begin(server)

    def write(name: str) -> None:
        send(server, call("write_note", name=name, text=""), session).close()

    with follow(server, session) as stream, Reader(stream) as reader:
        write("missed1")
        take(reader)
        last = reader.last_event_id
    write("missed2")
    with follow(server, session, last) as stream, Reader(stream) as reader:
        assert take(reader)["method"] == "notifications/resources/list_changed"


PING = rpc("ping")
COUNT = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "tools/call", "Mcp_Name": "count"}


def with_token(token: Any) -> dict[str, Any]:
    """A call whose progress token each of its messages repeats."""
    return rpc("tools/call", name="count", arguments={"to": 1}, _meta={**ENVELOPE, "progressToken": token})


@pytest.mark.parametrize(
    ("message", "headers", "status", "code"),
    [
        ("{", {}, 400, -32700),
        ("[" * 100_000, {}, 400, -32700),
        (json.dumps({**PING, "id": "\ud800"}), {}, 400, -32700),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', {}, 400, -32700),
        ([PING], {}, 400, -32600),
        ({"id": 1, "method": "ping"}, {}, 400, -32600),
        ({**PING, "id": None}, {}, 400, -32600),
        ({**PING, "id": "x" * 101}, {}, 400, -32600),
        ({**PING, "params": []}, {}, 400, -32600),
        (PING, {"Accept": "application/json"}, 406, -32600),
        (PING, {"Accept": "text/event-stream"}, 406, -32600),
        (PING, {"Content_Type": "text/plain"}, 415, -32600),
        (PING, {"Origin": "http://other.example"}, 403, -32600),
        (PING, {"Origin": "http://["}, 403, -32600),
        (PING, {"Host": "other.example"}, 403, -32600),
        (PING, {}, 400, -32600),
        (PING, {"session": "unknown"}, 404, -32600),
        (PING, {"MCP_Protocol_Version": "2030-01-01"}, 400, -32022),
        (PING, {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "ping"}, 400, -32602),
        ({**PING, "params": {"_meta": ENVELOPE}}, {"MCP_Protocol_Version": "2026-07-28"}, 400, -32020),
        (with_token("x" * 101), COUNT, 400, -32602),
        (with_token(["x"]), COUNT, 400, -32602),
    ],
)
def test_a_wrong_request_gets_the_protocol_s_error(
    server: Server, message: Any, headers: dict[str, str], status: int, code: int
) -> None:
    answer = send(server, message, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_unknown_method_is_an_error_of_each_version(server: Server) -> None:
    for answer, status in (
        (stateless(server, "missing", "x"), 404),
        (send(server, rpc("missing", "x"), begin(server)), 200),
    ):
        assert answer.status_code == status
        error = {"code": -32601, "message": "Method not found."}
        assert answer.json() == {"jsonrpc": "2.0", "id": "x", "error": error}
    for method in ("GET", "DELETE"):
        answer = send(server, None, method=method, MCP_Protocol_Version="2026-07-28")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("mode", "received"),
    [("auto", "ResourceUpdated(uri='note:welcome')"), ("legacy", "notifications/resources/list_changed")],
)
def test_the_client_of_the_example_runs(
    server: Server, capsys: pytest.CaptureFixture[str], mode: str, received: str
) -> None:
    main = runpy.run_path(str(FOLDER / "client.py"))["main"]
    asyncio.run(asyncio.wait_for(main(mode, server.url), TIMEOUT))
    output = capsys.readouterr().out
    assert "5 of 5\n  Counted to 5.\n" in output
    assert f"  received {received}\n" in output
