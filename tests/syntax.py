"""The syntax trees of the packages' modules, parsed once for all tests that read them."""

from __future__ import annotations

import ast
import functools
import gc
from collections.abc import Iterator
from pathlib import Path


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The tree of a module."""
    # So many objects are made, none of them garbage, that the collections take as long as the parser.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text("utf-8"))
    finally:
        if was_enabled:
            gc.enable()


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements below a node, at any depth. They are a tenth of what :func:`ast.walk` finds."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        below = getattr(tree, name, ())
        for node in below if isinstance(below, list) else ():
            if isinstance(node, ast.stmt):
                yield node
            yield from statements(node)
