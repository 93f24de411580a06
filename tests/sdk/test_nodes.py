"""The packages of tests/sdk/node, and the scripts' output."""

from __future__ import annotations

import json
import re

import pytest

from .nodes import FOLDER, need_node, run_node, version_of

LOCK = json.loads((FOLDER / "package-lock.json").read_text("utf-8"))
WANTED: dict[str, str] = json.loads((FOLDER / "package.json").read_text("utf-8"))["dependencies"]


def test_each_package_has_one_version_and_the_lock_names_no_registry() -> None:
    assert {
        name for name, version in WANTED.items() if not re.fullmatch(r"(npm:.+@)?\d+\.\d+\.\d+(-\S+)?", version)
    } == set()
    assert LOCK["packages"][""]["dependencies"] == WANTED
    locked = {path: entry for path, entry in LOCK["packages"].items() if path}
    assert {path for path, entry in locked.items() if "resolved" in entry or "integrity" not in entry} == set()


def test_the_installed_packages_are_those_of_the_lock() -> None:
    need_node()
    assert {name: version_of(name) for name in WANTED} == {
        name: LOCK["packages"][f"node_modules/{name}"]["version"] for name in WANTED
    }


def test_a_script_is_sent_and_sends_objects() -> None:
    with run_node("echo.mjs", "argument", env={"SENT": "variable"}) as script:
        assert script.read() == {"arguments": ["argument"], "variable": "variable"}
        script.send({"number": 1})
        script.send({"number": 2})
        assert script.read(lambda line: line["number"] == 2) == {"number": 2}
        assert script.read() == {"number": 1}
        script.send({"fail": "as asked"})
        with pytest.raises(AssertionError, match="as asked"):
            script.read()
