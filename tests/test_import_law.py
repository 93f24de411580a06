"""Who may import whom.

::

    errors <- event <- wire <- {server, client}
    reactor <- server <- detached <- channels <- keeper

``server`` and ``client`` never import each other. Below all rooms lie modules that know nothing of them: ``locks``,
``text``, ``greenlets``, ``cancel``, ``executor``, ``producing``, ``validation``, ``retry`` and ``settings``. Above them
lies ``commands``, for the command lines of all packages. The skins use public names of ``ssesync`` and ``commands``,
and never each other.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import ssesync
import ssesync.commands
import ssesync.options
from tests.syntax import parsed, statements

ROOT = Path(ssesync.__file__).parent.parent
#: The same, but where an installed package is tested.
CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for package in ("ssesync", "ssesync_flask", "ssesync_django") for path in ROOT.glob(f"{package}/**/*.py")
)

# What each part may import, besides itself.
LEAVES = {
    "errors",
    "event",
    "cancel",
    "locks",
    "producing",
    "retry",
    "settings",
    "text",
    "executor",
    "greenlets",
    "json_encoder",
    "receiving",
    "thread_start",
    "validation",
}
MAY = {
    "errors": {"event"},  # for type checkers only, see below
    "lock_order": set(),
    "lock_check": {"lock_order"},
    "locks": {"lock_check", "lock_order"},
    "text": set(),
    "cancel": {"locks"},
    "executor": {"locks"},
    "producing": {"cancel", "wire"},  # for type checkers only
    "greenlets": set(),
    "pollers": {"greenlets"},
    "receiving": set(),
    "timers": set(),
    "thread_start": {"locks", "text"},
    "reactor": {"locks", "text", "executor", "errors", "pollers", "thread_start", "timers"},
    "json_encoder": set(),
    "event": {"errors", "json_encoder", "validation"},
    "validation": {"errors"},
    "retry": {"errors", "text", "validation"},
    "settings": {"errors", "event", "validation"},
    "wire": {"errors", "event", "text"},
    "server": LEAVES | {"wire", "reactor"},
    "client": LEAVES | {"wire"},
    "detached": LEAVES | {"wire", "reactor", "server"},
    "channels": LEAVES | {"wire", "reactor", "server", "detached"},
    "commands": {"channels", "errors", "event", "text"},
    "keeper": LEAVES | {"wire", "reactor", "server", "detached", "channels"},
}
# Doors of the house, which open on all rooms.
DOORS = {
    *("ssesync", "ssesync.options", "ssesync.gunicorn", "ssesync.prometheus", "ssesync.testing", "ssesync.cli"),
    "ssesync.__main__",
}
# Imported only where it is loaded already, since there threads are greenlets and are to be treated as such.
WHERE_LOADED = {"ssesync.greenlets": {"gevent"}}


@functools.cache
def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path, *, type_checking: bool) -> tuple[tuple[str, str], ...]:
    """Every module that is imported, wherever in the file, with the name taken from it ("" for the module itself)."""
    return tuple(find_imports(path, type_checking=type_checking))


def is_type_checking(test: ast.expr) -> bool:
    """Whether what an ``if`` asks for is that a type checker reads the module."""
    return isinstance(test, (ast.Name, ast.Attribute)) and ast.unparse(test).endswith("TYPE_CHECKING")


def find_imports(path: Path, *, type_checking: bool) -> Iterator[tuple[str, str]]:
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    skipped: set[int] = set()
    for node in statements(parsed(path)):
        if not type_checking and isinstance(node, ast.If) and is_type_checking(node.test):
            skipped |= {id(inner) for statement in node.body for inner in (statement, *statements(statement))}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield base, alias.name


@functools.cache
def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def imported_modules(path: Path, *, type_checking: bool = True) -> Iterator[str]:
    for base, name in imports(path, type_checking=type_checking):
        yield f"{base}.{name}" if name and is_module(f"{base}.{name}") else base


def is_door(name: str) -> bool:
    """Whether a module is a door, or belongs to one."""
    return name in DOORS or any(name.startswith(f"{door}.") for door in DOORS - {"ssesync"})


CORE = [path for path in SOURCES if module_name(path).startswith("ssesync.") and not is_door(module_name(path))]


def test_a_part_of_the_core_imports_only_what_lies_below_it() -> None:
    for path in CORE:
        name = module_name(path)
        part = name.split(".")[1]
        for imported in imported_modules(path):
            package, _, rest = imported.partition(".")
            assert not package.startswith("ssesync_"), f"{name}, of the core, imports the skin {imported}"
            if package != "ssesync":
                continue
            assert rest, f"{name} imports the front door"
            allowed = rest in MAY[part] or rest.split(".")[0] in {part} | MAY[part]
            assert allowed, f"{name} may not import {imported}"


#: Modules of one room that know each other's types, for type checkers only. No module imports another of these at run
#: time that imports it.
KNOW_EACH_OTHER = (
    {"errors", "event", "validation"},
    {"server.factory", "server.producer", "server.spec", "server.upstream"},
    {"server.detaching", "server.ending", "server.source"},
    {
        "detached.broadcast",
        "detached.connection",
        "detached.connections",
        "detached.disconnecting",
        "detached.group",
        "detached.source",
    },
    {"channels.answer", "channels.subscribing", "channels.broker"},
    {"channels.runs.contract", "channels.runs.process", "channels.runs.run", "channels.runs.runs"},
)


def graph(*, type_checking: bool) -> dict[str, set[str]]:
    """Which module of the core imports which, without the package's name."""
    names = {path: module_name(path) for path in CORE}
    return {
        name.partition(".")[2]: {
            imported.partition(".")[2]
            for imported in imported_modules(path, type_checking=type_checking)
            if imported in names.values() and imported != name
        }
        for path, name in names.items()
    }


def cycles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules in which each leads to each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            left += (new := edges[left.pop()] - seen)
            seen |= new
        return seen

    reach = {name: reached(name) for name in edges}
    found = [{other for other in reach[name] if name in reach[other]} for name in edges if name in reach[name]]
    return [each for number, each in enumerate(found) if each not in found[:number]]


def test_at_run_time_no_modules_import_each_other() -> None:
    assert cycles(graph(type_checking=False)) == []


def test_for_type_checkers_only_modules_of_one_package_import_each_other() -> None:
    for cycle in cycles(graph(type_checking=True)):
        assert any(cycle <= known for known in KNOW_EACH_OTHER), sorted(cycle)


def rooms() -> dict[str, set[str]]:
    """Which part of the core imports which."""
    edges: dict[str, set[str]] = {}
    for name, imported in graph(type_checking=True).items():
        part = name.partition(".")[0]
        edges.setdefault(part, set()).update({other.partition(".")[0] for other in imported} - {part})
    return edges


def drawing() -> str:
    """Each part behind all that it imports, as docs/design.md shows it."""
    edges = {part: set(others) for part, others in rooms().items()}
    edges["errors"].discard("event")  # a type only
    lines: list[str] = []
    placed: set[str] = set()
    while len(placed) < len(edges):
        layer = sorted(part for part, others in edges.items() if part not in placed and others <= placed)
        lines += [f"{part:<12} {' '.join(sorted(edges[part]))}".rstrip() for part in layer]
        placed |= set(layer)
    return "\n".join(lines)


def test_the_documentation_draws_the_graph_as_it_is() -> None:
    text = (CHECKOUT / "docs" / "design.md").read_text()
    assert f"```text\n{drawing()}\n```" in text, drawing()


def test_every_part_of_the_core_has_its_place_in_the_law() -> None:
    assert {module_name(path).split(".")[1] for path in CORE} <= set(MAY)


def test_errors_know_events_only_as_a_type() -> None:
    path = ROOT / "ssesync" / "errors.py"
    assert not [name for name in imported_modules(path, type_checking=False) if name.startswith("ssesync")]


def test_what_serves_and_what_is_pure_needs_only_the_standard_library() -> None:
    for path in CORE:
        module = module_name(path)
        if module.startswith(("ssesync.client", "ssesync.channels")):
            continue
        allowed = {"ssesync", *sys.stdlib_module_names} | WHERE_LOADED.get(module, set())
        for imported in imported_modules(path, type_checking=False):
            assert imported.split(".")[0] in allowed, f"{module} imports {imported}"


def test_the_wire_is_pure() -> None:
    impure = {"asyncio", "os", "queue", "select", "selectors", "socket", "ssl", "threading", "time"}
    modules = [path for path in CORE if ".wire" in module_name(path)]
    assert modules
    for path in modules:
        assert not impure & {name.split(".")[0] for name in imported_modules(path)}, module_name(path)


#: What the integrations may use.
SHARED = {each.__name__: each for each in (ssesync, ssesync.wire, ssesync.commands, ssesync.options)}


def test_an_integration_uses_public_names_only_and_no_other_integration() -> None:
    for path in SOURCES:
        skin = path.relative_to(ROOT).parts[0]
        if skin == "ssesync":
            continue
        for base, name in imports(path, type_checking=True):
            package = base.split(".")[0]
            if package == "ssesync":
                assert base in SHARED, f"{module_name(path)}: {base} is not public"
                public = SHARED[base].__all__
                assert not name or name in public, f"{module_name(path)}: {base}.{name} is not public"
            elif package.startswith("ssesync_"):
                assert package == skin, f"{module_name(path)} imports {base}"
