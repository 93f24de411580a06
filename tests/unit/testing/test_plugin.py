"""The fixtures, as an installed ssesync brings them to a project that does nothing to have them."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_of

PACKAGES = ("ssesync", "ssesync_django", "ssesync_flask")

USES_ALL = """
from ssesync import EventStream, Reader
import requests

def numbers():
    n = 0
    while True:
        n += 1
        yield str(n)

kept = []

def test_open(open_stream):
    kept.append(open_stream(EventStream(numbers), "/", timeout=20))
    assert kept[0].next().data == "1"

def test_live(live_stream):
    kept.append(live_stream(EventStream(numbers), timeout=20))
    assert kept[1].next().data == "1"

def test_they_are_closed_with_their_tests():
    for stream in kept:
        stream.wait_closed()

def test_server(fake_sse_server):
    fake_sse_server.answer().event("x")
    with requests.get(fake_sse_server.url, stream=True, timeout=90) as response:
        assert [event.data for event in Reader(response)] == ["x"]

def test_clock(fake_sse_clock):
    assert fake_sse_clock.waits == []
"""

# What a test that uses no fixture has not caused to be imported.
USES_NONE = """
import sys

def test_nothing():
    heavy = {"requests", "urllib3", "flask", "werkzeug", "django", "wsgiref"} & set(sys.modules)
    kit = {name for name in sys.modules if name.startswith("ssesync.testing.")}
    assert (heavy, kit) == (set(), {"ssesync.testing.plugin"})
"""

WITHOUT_FRAMEWORKS = (
    """
import sys

for name in ("flask", "werkzeug", "django"):
    sys.modules[name] = None
"""
    + USES_ALL
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory to run pytest in, with the metadata of an installed ssesync beside it."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    metadata = tmp_path / "site" / "ssesync-0.0.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ssesync\nVersion: 0.0.0\n")
    (metadata / "RECORD").write_text("".join(f"{name}/__init__.py,,\n" for name in PACKAGES))
    points = settings["options.entry_points"]["pytest11"]
    (metadata / "entry_points.txt").write_text(f"[pytest11]{points}\n")
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def run(
    project: Path, *options: str, first: str = "", tests: str = USES_ALL, **environment: str
) -> tuple[dict[str, int], str]:
    """The outcomes of a project's tests, with every warning an error."""
    (project / "test_it.py").write_text(tests)
    # Other plugins of this machine are not part of the question.
    others = [f"-pno:{name}" for name in ("django", "timeout", "hypothesispytest", "flask", "anyio", "cov")]
    command = f"{first}\nimport sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, "-q", "-W", "error", "-p", "no:cacheprovider", *others, *options],
        cwd=project, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project.parent / "site"), str(ROOT)]), **environment},
    )  # fmt: skip
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    counts = {word: int(number) for number, word in zip(last.split(), last.replace(",", "").split()[1:], strict=False)
              if number.isdecimal()}  # fmt: skip
    return counts, done.stdout + done.stderr


@pytest.mark.parametrize("tests", [USES_ALL, WITHOUT_FRAMEWORKS], ids=["installed", "no framework"])
def test_the_fixtures_are_there_and_clean_up_after_themselves(project: Path, tests: str) -> None:
    counts, output = run(project, tests=tests)
    assert counts.get("passed") == 5, output
    assert not counts.keys() & {"failed", "error", "errors", "warning", "warnings"}, output


def test_the_example_of_the_guide_does_what_it_says(project: Path) -> None:
    page = (ROOT / "docs" / "guide" / "testing.md").read_text("utf-8")
    [example] = [block.source for block in blocks_of(page, "testing.md") if "open_stream):" in block.source]
    before = """
from ssesync import EventSource, EventStream

app = EventStream(lambda: ["1"])
"""
    counts, output = run(project, tests=before + example)
    assert counts.get("passed") == 3, output


def test_nothing_heavy_is_imported_until_a_fixture_is_used(project: Path) -> None:
    counts, output = run(project, tests=USES_NONE)
    assert counts.get("passed") == 1, output


def test_a_process_that_uses_ssesync_may_run_pytest_itself(project: Path) -> None:
    """A test runner of Django's, for one. Of plugins that were imported before, pytest says it can't rewrite them."""
    counts, output = run(project, first=f"import {', '.join(PACKAGES)}")
    assert counts.get("passed") == 5, output


def test_the_plugin_can_be_left_out(project: Path) -> None:
    counts, output = run(project, "-p", "no:ssesync")
    assert "fixture 'open_stream' not found" in output
    assert counts.get("passed") == 1, output


def test_the_plugin_can_be_named_where_ssesync_is_not_installed(project: Path) -> None:
    (project.parent / "site").rename(project.parent / "elsewhere")
    # It may be installed here all the same: so no plugin is loaded unasked.
    counts, output = run(project, "-p", "ssesync.testing.plugin", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert counts.get("passed") == 5, output
