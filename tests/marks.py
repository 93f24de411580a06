"""Which cases a run can leave out: marks that follow from where a test lies, and what need not even be imported.

``live``: starts a server, an example project, a browser or an SDK's client. ``slow``: starts processes or a database,
or takes more than about a second. ``pytest -m "not live and not slow"`` is the quick run: half a minute on two cores.
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: The marks of all tests in a folder or file. Other slow tests have the mark themselves.
BY_PLACE = {
    "browser": {"live"},
    "examples": {"live"},
    "live": {"live"},
    "load": {"live", "slow"},
    "sdk": {"live"},
    "test_clone.py": {"live"},
}


def marks_of(path: Path) -> set[str]:
    """The marks that follow from a path."""
    return BY_PLACE.get(path.relative_to(TESTS).parts[0], set()) if TESTS in path.parents else set()


def mark_by_place(items: list[pytest.Item]) -> None:
    """Give each test the marks of its place."""
    for item in items:
        for name in sorted(marks_of(item.path)):
            item.add_marker(name)


def is_left_out(path: Path, expression: str) -> bool:
    """Whether no test under a path can match ``-m expression``, whatever other marks the tests there have.

    Collecting takes longer than many a test, so what is left out is not imported. An expression with more than words,
    ``and``, ``or``, ``not`` and brackets leaves nothing out here; pytest itself selects in any case.
    """
    certain = marks_of(path)
    if not certain or not expression:
        return False
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        return False
    nodes = list(ast.walk(tree))
    plain = (ast.Expression, ast.BoolOp, ast.UnaryOp, ast.Not, ast.And, ast.Or, ast.Name, ast.Load)
    open_names = sorted({node.id for node in nodes if isinstance(node, ast.Name)} - certain)
    if not all(isinstance(node, plain) for node in nodes) or len(open_names) > 6:
        return False
    code = compile(tree, "-m", "eval")
    known = dict.fromkeys(certain, True)
    return not any(
        eval(code, {"__builtins__": {}}, {**known, **dict(zip(open_names, values, strict=True))})
        for values in itertools.product((True, False), repeat=len(open_names))
    )


def is_quick(expression: str) -> bool:
    """Whether a run leaves the slow tests out."""
    return is_left_out(TESTS / "load", expression)
