"""The commands on the page of the command line write what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from ssesync import EventStream
from tests.docs.blocks import ROOT
from tests.docs.feed import application, serving

from .runs import run

PLACEHOLDER = "http://127.0.0.1:8000"
PAGE = (ROOT / "docs" / "guide" / "command-line.md").read_text("utf-8")
COMMANDS = [
    (command, output)
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ python -m ssesync (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.fixture(scope="module")
def feed() -> Iterator[str]:
    streams: list[EventStream] = []

    def once(environ, start_response):
        # A client that resumes after the last event gets 204.
        if environ.get("HTTP_LAST_EVENT_ID") == "3":
            start_response("204 No Content", [])
            return []
        body = application(environ, start_response)
        streams.extend([body] if hasattr(body, "cancel") else [])
        return body

    with serving(once) as base:
        yield base
        for stream in streams:
            stream.cancel("shutdown")


def normalised(text: str) -> str:
    """The text without figures and line wraps, which differ between runs."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", PLACEHOLDER, text)
    return " ".join(re.sub(r"\d[\d.,:]*\d|\d", "0", text).replace("0 ms", "0 s").split())


def test_the_page_has_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.slow
@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_writes_what_the_page_shows(feed: str, command: str, output: str):
    done = run(*shlex.split(command.replace(PLACEHOLDER, feed)))
    assert normalised(done.stdout + done.stderr) == normalised(output)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["tail", "doctor"])
def test_the_page_has_the_exit_statuses_of_the_help(command: str):
    tables = PAGE.split("| exit status | |\n| --- | --- |\n")[1:]
    table = tables[["tail", "doctor"].index(command)].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE)
    lines = run(command, "--help").stdout.partition("Exit status:\n")[2]
    helped = re.findall(r"^ +(\d+)  (.*(?:\n {7,}.*)*)", lines, re.MULTILINE)
    plain = [(number, " ".join(text.split())) for number, text in helped]
    shown = [(number, text.replace("`", "").replace(", or a package is missing", "")) for number, text in rows]
    assert shown == plain
