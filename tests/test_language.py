"""The packages' names, docstrings, comments, log lines and errors use the field's terms (docs/design.md, CONTRIBUTING).

The list has only words that are never right here: metaphors and private words that an earlier text used for something
that has a name. Each is named with what to write instead.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import ssesync
from tests.syntax import parsed

ROOT = Path(ssesync.__file__).parent.parent
MODULES = sorted(
    path for package in ("ssesync", "ssesync_flask", "ssesync_django") for path in ROOT.glob(f"{package}/**/*.py")
)

#: Parts of names, and what they are called.
NAMES = {
    "audience": "broadcast group",
    "blameless": "catching up",
    "crew": "executor",
    "crowd": "clients, connections: say which",
    "farewell": "last_event, trailer",
    "goodbye": "trailer, shutdown",
    "herd": "clients that reconnect together",
    "inbox": "subscriber queue",
    "likeness": "grouping key",
    "told": "the step: logged, reported, sent, requested",
    "trouble": "retry, back-off, error",
    "verdict": "decision, result",
    "welcome": "add, admit",
    "who": "user, owner, client, key",
    "whoever": "the object's own name",
}
#: Whole names. The others are parameters of public functions, and keys of ``streams.snapshot()``.
ALLOWED = {"farewell", "who"}
COMPOUND = {
    "let_go": "release, close",
    "take_in": "register, admit",
    "bid_farewell": "send the trailer",
    "say_goodbye": "shut down",
    "in_step": "in sync",
}
TEXT = {
    r"audiences?": "broadcast group",
    r"blameless": "catching up",
    r"crews?": "executor",
    r"crowds?": "many clients: say how many, or which",
    r"goodbyes?": "trailer, shutdown",
    r"herds?": "clients that reconnect together",
    r"in step": "in sync",
    r"f[ea]ll(?:s|en)? behind": "lags, is too slow",
    r"knows? nothing": "does not import, has no reference to",
    r"lets? go": "releases, closes",
    r"takes? in|took in": "registers, admits",
    r"troubles?": "error, failure",
    r"welcomed?": "adds, admits",
    r"at a stroke": "in one step",
    r"(?:comes?|came) home": "returns",
}
PATTERN = re.compile("|".join(rf"\b(?:{words})\b" for words in TEXT), re.IGNORECASE)
#: Found in the source of each module that has a fault, in lower case: the others are not parsed. With re.IGNORECASE the
#: search took ten times as long.
SUSPECT = re.compile(
    "|".join([*(NAMES.keys() - {"who"}), "_who|who_", *COMPOUND, *(words.replace(" ", r"\W+") for words in TEXT)])
)
QUOTED = re.compile(r"``[^`]*``|`[^`]*`")


def named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The names that a module defines, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def written(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, of its attributes too, and the texts of its log lines and errors."""
    for node in ast.walk(tree):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_message = isinstance(node, ast.Raise) or (
            isinstance(node, ast.Call) and ast.unparse(node.func).partition(".")[0] in ("logger", "warnings")
        )
        if is_docstring or is_message:
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def commented(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of a module. Consecutive lines are one text."""
    texts: list[tuple[int, str]] = []
    last = -1
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                text = token.string.lstrip("#: ")
                if token.start[0] == last + 1:
                    texts[-1] = texts[-1][0], f"{texts[-1][1]} {text}"
                else:
                    texts.append((token.start[0], text))
                last = token.start[0]
    yield from texts


def words_of(name: str) -> set[str]:
    """The words of an identifier."""
    return {word.lower() for word in re.split(r"_+|(?<=[a-z])(?=[A-Z])", name)}


def faults(path: Path) -> Iterator[str]:
    """The forbidden words of a module."""
    where = path.relative_to(ROOT)
    tree = parsed(path)
    for line, name in named(tree):
        if name not in ALLOWED:
            bad = sorted(words_of(name) & NAMES.keys()) + [each for each in COMPOUND if each in name]
            yield from (f"{where}:{line}: the name {name}: {each} is {({**NAMES, **COMPOUND})[each]}" for each in bad)
    for line, text in (*written(tree), *commented(path)):
        for found in PATTERN.finditer(QUOTED.sub(" ", " ".join(text.split()))):
            instead = next(value for words, value in TEXT.items() if re.fullmatch(words, found[0], re.IGNORECASE))
            yield f"{where}:{line}: {found[0]!r}: {instead}"


def test_names_and_texts_of_the_packages_use_the_terms_of_the_field() -> None:
    assert len(MODULES) > 150
    suspects = [path for path in MODULES if SUSPECT.search(path.read_text("utf-8").lower())]
    assert [fault for path in suspects for fault in faults(path)] == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def let_go_of(sink): ...", "the name let_go_of: let_go is release, close"),
        ("class Crew: ...", "the name Crew: crew is executor"),
        ("def add(self, told): ...", "the name told: told is the step: logged, reported, sent, requested"),
        ('"""One of the\ncrowd."""', "'crowd': many clients: say how many, or which"),
        ('x = 1\n"""Lets go of it."""', "'Lets go': releases, closes"),
        ("# A client that fell\n# behind.", "'fell behind': lags, is too slow"),
        ('logger.warning("%s is in trouble", name)', "'trouble': error, failure"),
        ('raise ValueError(f"{name} is in step")', "'in step': in sync"),
    ],
)
def test_a_forbidden_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, fault: str) -> None:
    monkeypatch.setattr("tests.test_language.ROOT", tmp_path)
    (path := tmp_path / "module.py").write_text(f"{source}\n")
    (found,) = faults(path)
    assert found.endswith(fault)


def test_names_of_the_public_interface_and_quoted_words_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_language.ROOT", tmp_path)
    (path := tmp_path / "module.py").write_text('def drain(farewell, who):\n    """``farewell=`` and ``crew``."""\n')
    assert list(faults(path)) == []
