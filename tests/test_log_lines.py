"""Nothing that comes from others begins a line of a log by itself: each ``%s`` of ours is escaped where it is logged.

A request's path, a key, the text of another program's error: whichever it is, nobody has to find out at each call.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ssesync
from tests.syntax import parsed

ROOT = Path(ssesync.__file__).parent.parent
LEVELS = ("debug", "info", "warning", "error", "critical", "exception", "log")
#: ``%r`` escapes by itself, and numbers have no such characters.
CONVERSION = re.compile(r"%[-#0 +]*\d*(?:\.\d+)?([a-zA-Z%])")


def calls() -> Iterator[tuple[str, ast.Call]]:
    for package in ("ssesync", "ssesync_flask", "ssesync_django"):
        for path in sorted(ROOT.glob(f"{package}/**/*.py")):
            for node in ast.walk(parsed(path)) if "logger." in path.read_text("utf-8") else ():
                function = getattr(node, "func", None)
                is_call = isinstance(node, ast.Call) and isinstance(function, ast.Attribute)
                if is_call and function.attr in LEVELS and ast.unparse(function.value) == "logger":
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def is_safe(value: ast.expr) -> bool:
    """Whether it is our own words, was escaped, or is a class's name."""
    if isinstance(value, ast.IfExp):
        return is_safe(value.body) and is_safe(value.orelse)
    return isinstance(value, ast.Constant) or bool(
        re.fullmatch(r"escape\(.*\)|type\(\w+\)\.__name__", ast.unparse(value), re.DOTALL)
    )


def faults(call: ast.Call) -> Iterator[str]:
    """What is wrong with one call of a logger."""
    text, *values = call.args[1:] if call.func.attr == "log" else call.args  # type: ignore[attr-defined]
    if not isinstance(text, ast.Constant):
        yield "the text is no constant: values belong behind it"
        return
    kinds = [kind for kind in CONVERSION.findall(text.value) if kind != "%"]
    if len(kinds) != len(values):
        yield f"{len(kinds)} conversions and {len(values)} values"
    for kind, value in zip(kinds, values, strict=False):
        if kind not in "srdfg":
            yield f"%{kind} is not among the conversions whose output is known"
        elif kind == "s" and not is_safe(value):
            yield f"{ast.unparse(value)} is not escaped"


def test_what_a_log_line_is_given_is_escaped() -> None:
    logged = dict(calls())
    assert len(logged) > 30
    assert [f"{place}: {fault}" for place, call in logged.items() for fault in faults(call)] == []
