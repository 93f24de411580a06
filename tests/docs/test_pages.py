"""The pages say what the code says: settings, public names, and a build without a warning."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ssesync
import ssesync.testing
import ssesync_django
import ssesync_flask
from ssesync import CloseReason, Settings

from .blocks import ROOT

API = "\n".join(page.read_text("utf-8") for page in sorted((ROOT / "docs" / "api").glob("*.rst")))


def rows_under(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the serving page."""
    text = (ROOT / "docs" / "guide" / "serving.md").read_text("utf-8")
    section = re.split(r"^#", text.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)[2:]
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in rows]


def test_the_settings_table_names_every_option_with_its_default() -> None:
    table = [(name, ast.literal_eval(default)) for name, default, _ in rows_under("Settings")]
    assert table == [(each.name, each.default) for each in dataclasses.fields(Settings)]


def test_the_table_of_close_reasons_names_real_ones() -> None:
    named = {name for name, _ in rows_under("Why a stream ended")}
    assert named <= {reason.value for reason in CloseReason}
    assert {"done", "client_gone", "cancelled", "error"} <= named


@pytest.mark.parametrize(
    "module", [ssesync, ssesync.wire, ssesync.testing, ssesync_flask, ssesync_django], ids=lambda m: m.__name__
)
def test_the_reference_has_every_public_name(module: object) -> None:
    missing = [
        name
        for name in module.__all__  # type: ignore[attr-defined]
        if not re.search(rf":: (\w+\.)*{name}$|:(func|mod):`(\w+\.)*{name}`", API, re.MULTILINE) and name != "wire"
    ]
    assert not missing


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in text or f"## [{ssesync.__version__}]" in text
    assert ssesync.__version__ in text


def is_built() -> bool:
    """Whether ``make docs`` has built these pages, without a warning, from the sources as they are."""
    passed = ROOT / "docs" / "_build" / "passed"
    sources = [*ROOT.glob("docs/**/*.*"), *ROOT.glob("ssesync*/**/*.py"), *ROOT.glob("*.md")]
    newest = max(source.stat().st_mtime for source in sources if "_build" not in source.parts)
    return passed.exists() and passed.stat().st_mtime > newest


@pytest.mark.timeout(900)
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    if is_built():
        return
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html")], capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "index.html").exists()
