"""Official MCP clients that listen to the example mcp_server: one gunicorn worker with four threads.

``python -m tests.load.mcp_listeners --clients 500 --processes 5`` opens all of them, writes notes that each of them has
subscribed to, and prints a line of JSON. The exit code is 1 if a client has not received each change once, in order.
Each process has a fraction of the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from tests.examples.test_mcp_server import serving, stateless
from tests.later import ImportedLater

mcp: Any = ImportedLater("mcp")

#: Without the version a client asks for it, and on a busy machine takes an answer after ten seconds for an old server.
VERSION = "2026-07-28"
#: The notes that are written. A client drops a change that equals one which it has not taken yet, so each is another.
NOTES = [f"note:change{number}" for number in range(5)]
#: Clients of a process that connect at the same time.
OPENING = 4
#: Seconds for each step, however busy the machine is.
TIMEOUT = 600.0


def show(**fields: Any) -> None:
    """Print a line for the parent process."""
    print(json.dumps(fields), flush=True)


async def listen_all(url: str, count: int) -> None:
    """The clients of one process."""
    opening, opened = asyncio.Semaphore(OPENING), 0
    received: list[list[str]] = []
    last: dict[str, float] = {}

    async def listen() -> None:
        nonlocal opened
        async with contextlib.AsyncExitStack() as stack:
            async with opening:
                client = await stack.enter_async_context(mcp.Client(url, mode=VERSION))
                subscription = await stack.enter_async_context(client.listen(resource_subscriptions=NOTES))
            opened += 1
            if opened == count:
                show(opened=count)
            uris: list[str] = []
            received.append(uris)
            async for event in subscription:  # until the server ends the subscription
                uris.append(event.uri)
                last[event.uri] = time.monotonic()
                if len(uris) == len(NOTES) and sum(map(len, received)) >= count * len(NOTES):
                    show(last=last)

    await asyncio.wait_for(asyncio.gather(*(listen() for _ in range(count))), TIMEOUT)
    show(right=sum(uris == NOTES for uris in received))


def read(output: IO[str], name: str) -> Any:
    """The value of a process's next line."""
    line = output.readline()
    assert line, f"a process of clients has ended before its {name}"
    return json.loads(line)[name]


@contextlib.contextmanager
def clients_of(url: str, counts: list[int]) -> Iterator[list[IO[str]]]:
    """The processes; their outputs."""
    with contextlib.ExitStack() as stack:
        outputs = []
        for count in counts:
            command = [sys.executable, "-m", "tests.load.mcp_listeners", "--url", url, "--clients", str(count)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout is not None
            outputs.append(process.stdout)
        yield outputs


def measure(count: int, processes: int, folder: Path) -> dict[str, Any]:
    """One run.

    :return: the figures.
    """
    counts = [count // processes + (number < count % processes) for number in range(processes)]
    with serving(folder) as server:

        def write(uri: str) -> None:
            stateless(server, "tools/call", name="write_note", arguments={"name": uri[5:], "text": ""}).close()

        for uri in NOTES:  # a note that is missing can't be subscribed to
            write(uri)
        [worker] = psutil.Process(server.process.pid).children()
        empty = worker.memory_info().rss
        begun = time.monotonic()
        with clients_of(server.url, counts) as outputs:
            assert [read(output, "opened") for output in outputs] == counts
            figures: dict[str, Any] = {"clients": count, "opened within": round(time.monotonic() - begun, 1)}
            figures["threads"], rss = worker.num_threads(), worker.memory_info().rss
            figures["MB"], figures["kB a client"] = rss >> 20, round((rss - empty) / count / 1024, 1)
            written = {}
            for uri in NOTES:
                written[uri] = time.monotonic()
                write(uri)
            ends = [read(output, "last") for output in outputs]
            figures["ms to all"] = [round(1000 * (max(end[uri] for end in ends) - written[uri])) for uri in NOTES]
            server.process.terminate()
            figures["right"] = sum(read(output, "right") for output in outputs)
    return {**figures, "load": round(os.getloadavg()[0], 1)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--url", help="listen to this server, as one of the processes")
    given = parser.parse_args()
    if given.url:
        asyncio.run(listen_all(given.url, given.clients))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given.clients, given.processes, Path(folder))
    print(json.dumps(figures))
    sys.exit(figures["right"] != given.clients)


if __name__ == "__main__":
    main()
