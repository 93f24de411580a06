"""The clients of others that read our streams, in the order of the page, and what each does differently."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The releases of all packages.
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
PACKAGES = Path(__file__).parent / "node" / "package.json"


@dataclass(frozen=True, eq=False)
class Client:
    """A client.

    :param name: what the page and the tests call it.
    :param package: in the Python or the npm index; empty: this library.
    :param where: ``"Python"``, ``"Node"`` or ``"page"``.
    :param command: what runs it, without the task. By default the function of its name in tests/sdk/readers.py, or
        the script of its package's name in tests/sdk/node.
    :param resumes: reconnects with the last event ID. It reads runs, by GET; the others read answers, by POST.
    :param plain: reads plain events, so that it can read odd ones too; else it reads those of a protocol.
    :param scenarios: those that it goes through, or all.
    :param faults: for a scenario, the cases in which it does not do what it must, with what it does instead.
    :param notes: what its users have to know, for the page.
    """

    name: str
    package: str
    where: str
    command: tuple[str, ...] = ()
    resumes: bool = False
    plain: bool = False
    scenarios: tuple[str, ...] = ("whole", "error", "term", "kill", "odd")
    faults: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: str = ""

    def __str__(self) -> str:
        return self.name

    def argv(self) -> tuple[str, ...]:
        if self.command:
            return self.command
        if self.where == "Python":
            return (sys.executable, "-m", "tests.sdk.readers", self.name)
        script = re.sub(r"\W+", "-", self.package).strip("-")
        return ("node", f"tests/sdk/node/{script}.mjs")

    def version(self) -> str:
        """The release that is tried: where they differ, the one for newer interpreters."""
        if not self.package:
            return ""
        if self.where == "Python":
            found = re.search(rf"^{re.escape(self.package)}==([\w.]+)", REQUIREMENTS.read_text("utf-8"), re.MULTILINE)
            assert found is not None, self.package
            return found[1]
        return str(json.loads(PACKAGES.read_text("utf-8"))["dependencies"][self.package])


#: What several give for a case of odd data.
NOTHING, EMPTY = "gives nothing", "gives '' (type='update'), 'x' (type='message')"
PYTHON = [
    Client("openai, chat completions", "openai", "Python"),
    Client("openai, responses", "openai", "Python"),
    Client("anthropic", "anthropic", "Python"),
    Client("mcp", "mcp", "Python"),
    Client("a2a-sdk", "a2a-sdk", "Python"),
    Client("ag-ui-protocol", "ag-ui-protocol", "Python", notes="Its models; httpx2 reads the stream."),
    Client(
        "httpx-sse",
        "httpx-sse",
        "Python",
        plain=True,
        faults={
            "odd": {
                "a byte order mark": NOTHING,
                "an event without data": EMPTY,
                "comments between blank lines, after an ID": "gives " + ", ".join(["'' (type='message')"] * 4),
            }
        },
    ),
    Client(
        "httpx2",
        "httpx2",
        "Python",
        plain=True,
        faults={"odd": {"a byte order mark": NOTHING, "an event without data": EMPTY}},
        notes="`client.sse()`. An event of more than a megabyte is an error, unless `max_event_size` is raised.",
    ),
    Client(
        "sseclient-py",
        "sseclient-py",
        "Python",
        plain=True,
        faults={
            "odd": {
                "the ID of a later event": "gives 'y' (type='message')",
                "a byte order mark": NOTHING,
                "mixed line ends": r"gives 'a\nb' (type='message')",
                "NUL in an ID": r"gives 'x' (type='message', id='8'), 'y' (type='message', id='a\x00b')",
                "bytes that are not UTF-8": "gives nothing, and raises UnicodeDecodeError",
            }
        },
    ),
    Client(
        "requests-sse",
        "requests-sse",
        "Python",
        resumes=True,
        plain=True,
        faults={
            "odd": {
                "leading spaces": "gives 'two' (type='message')",
                "line ends at the end": "gives 'one' (type='message')",
                "a byte order mark": NOTHING,
                "CR LF in two chunks": "gives 'a' (type='message')",
                "NUL in an ID": r"gives 'x' (type='message', id='8'), 'y' (type='message', id='a\x00b')",
                "bytes that are not UTF-8": "gives nothing, and raises UnicodeDecodeError",
            }
        },
        notes="Raises after the 204 that says that no more will come.",
    ),
    Client(
        "launchdarkly-eventsource",
        "launchdarkly-eventsource",
        "Python",
        resumes=True,
        plain=True,
        faults={"odd": {"a byte order mark": NOTHING, "bytes that are not UTF-8": "gives nothing, and reconnects"}},
        notes="Reconnects where its `error_strategy` says so, and has to be told that a 204 is the end.",
    ),
    Client("ssesync, Reader", "", "Python", plain=True),
    Client("ssesync, EventSource", "", "Python", resumes=True, plain=True),
]


def node_source(name: str, package: str = "", notes: str = "", **options: Any) -> Client:
    """A client of tests/sdk/node/sources.mjs, which reads plain events."""
    command = ("node", "tests/sdk/node/sources.mjs", name.partition(",")[0])
    return Client(name, package or name, "Node", command, plain=True, notes=notes, **options)


#: Of eventsource-parser, which two of the clients have.
NOT_STICKY = {
    "the ID of a later event": "gives 'y' (type='message')",
    "NUL in an ID": "gives 'x' (type='message', id='8'), 'y' (type='message')",
}
FETCH_EVENT_SOURCE = {
    **NOT_STICKY,
    "line ends at the start": "gives 'one' (type='message')",
    "an event without data": "gives '' (type='update'), 'x' (type='message')",
    "NUL in an ID": "gives 'x' (type='message', id='8'), 'y' (type='message', id='a\\x00b')",
    "comments between blank lines, after an ID": "gives " + ", ".join(["'' (type='message')"] * 4),
}
NODE = [
    node_source(
        "eventsource",
        resumes=True,
        faults={"odd": NOT_STICKY},
        notes="Gives an event's ID with that event only. It resumes from it all the same.",
    ),
    node_source(
        "undici, EventSource",
        "undici",
        resumes=True,
        faults={"odd": {"an empty ID": "gives 'x' (type='message', id='7')"}},
        notes="Its timer does not keep a process running while it waits to reconnect.",
    ),
    node_source(
        "eventsource-client",
        resumes=True,
        faults={"odd": NOT_STICKY},
        notes="Reconnects after each status but 204, also after 403. Gives an event's ID with that event only.",
    ),
    node_source(
        "fetch-event-source, GET",
        "@microsoft/fetch-event-source",
        resumes=True,
        faults={"odd": FETCH_EVENT_SOURCE},
        notes="Takes each end for that of the answer: throw in `onclose`, and in `onopen` at a status other than 200.",
    ),
    node_source(
        "fetch-event-source, POST",
        "@microsoft/fetch-event-source",
        faults={"odd": FETCH_EVENT_SOURCE},
        notes="Throw in `onerror`, or it POSTs again. On Node 20 give it undici's `fetch`, see {ref}`honest-ends`.",
    ),
]
CLIENTS = [*PYTHON, *NODE]
