"""The clients of others that read our streams, in the order of the page, and what each does differently."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

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
        """The release that is tried."""
        if self.where != "Python":
            found = json.loads(PACKAGES.read_text("utf-8"))
            return str({**found.get("dependencies", {}), **found.get("devDependencies", {})}[self.package])
        return importlib.metadata.version(self.package) if self.package else ""


PYTHON = [
    Client("openai, chat completions", "openai", "Python"),
    Client("openai, responses", "openai", "Python"),
    Client("anthropic", "anthropic", "Python"),
    Client("httpx-sse", "httpx-sse", "Python", plain=True),
    Client("httpx2", "httpx2", "Python", plain=True),
    Client("sseclient-py", "sseclient-py", "Python", plain=True),
    Client("requests-sse", "requests-sse", "Python", resumes=True, plain=True),
    Client("launchdarkly-eventsource", "launchdarkly-eventsource", "Python", resumes=True, plain=True),
    Client("ssesync, Reader", "", "Python", plain=True),
    Client("ssesync, EventSource", "", "Python", resumes=True, plain=True),
]
NODE: list[Client] = []
CLIENTS = [*PYTHON, *NODE]
