"""docs/design.md names modules and functions: in its tree of modules, and in its map of eleven questions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ssesync

PACKAGE = Path(ssesync.__file__).parent
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "design.md").read_text()
#: Several modules each, which the tree names by their folder.
FOLDERS = {"cli", "testing"}
ROWS = [line for line in TEXT.split("\n") if re.match(r"\| (Where|What|How) ", line)]


def named(row: str) -> list[tuple[str, str]]:
    """The modules that an answer names, each with a function or class of it; "" for none."""
    found: list[tuple[str, str]] = []
    module = ""
    for name in re.findall(r"`([\w./]+)`", row):
        if name.endswith(".py"):
            module = name
            found.append((module, ""))
        else:
            found.append((module, name))
    return found


def definitions(path: Path) -> set[str]:
    """The names that a module defines, those in classes with the class's name."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_the_map_answers_eleven_questions() -> None:
    assert len(ROWS) == 11


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" | ")[0].strip("| "))
def test_each_answer_names_what_there_is(row: str) -> None:
    answers = named(row.split(" | ")[1])
    assert answers
    for module, name in answers:
        path = PACKAGE / module
        assert path.is_file(), f"{module} is gone"
        assert not name or name in definitions(path), f"{module} has no {name}"


def tree() -> set[str]:
    """The modules that the tree of modules names, as paths from the package's folder."""
    [block] = re.findall(r"^```text\nssesync/\n(.*?)^ssesync_flask/", TEXT, re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    folder = ""
    for line in block.split("\n"):
        if new := re.match(r"  (?:  (\w+)/|(\w+)/)", line):
            folder = f"channels/{new[1]}/" if new[1] else f"{new[2]}/"
        elif re.match(r"  \w", line):
            folder = ""
        rest = line
        for package, modules in re.findall(r"(\w+)/ \(([^)]*)\)", line):
            found |= {f"{folder}{package}/{name}" for name in re.findall(r"\w+\.py", modules)}
            rest = rest.replace(f"({modules})", "")
        found |= {f"{folder}{name}" for name in re.findall(r"\b\w+\.py\b", rest)}
    return found


def test_the_tree_has_every_module_and_no_other() -> None:
    modules = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("__") and path.relative_to(PACKAGE).parts[0] not in FOLDERS
    }
    assert tree() == modules
