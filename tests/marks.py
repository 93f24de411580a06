"""Which cases a run can leave out: marks that follow from where a test lies, and what need not even be imported.

``live``: starts a server, an example project, a browser or an SDK's client. ``slow``: starts processes or a database,
or waits for more than about a quarter of a second. ``pytest -m "not live and not slow"`` is the quick run: half a
minute on two cores. ``matrix``: a further combination of what other cases show too, with another worker or broker, or
more of the same. These are run only where ``-m`` names the mark, or where a test is named: by ``make matrix``.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: The marks of all tests in a folder or file. Other slow tests have the mark themselves.
BY_PLACE = {
    "browser": {"live"},
    "docs": {"slow"},
    "examples": {"live"},
    "live": {"live"},
    "live/answers": {"live", "slow"},
    "load": {"live", "slow"},
    "proxies": {"live"},
    "sdk": {"live"},
    "test_clone.py": {"live"},
    "unit/benchmarks": {"slow"},
    "unit/channels/test_gevent.py": {"slow"},
    "unit/channels/test_redis.py": {"slow"},
    "unit/cli/test_behind_servers.py": {"live"},
    "unit/cli/test_terminal.py": {"slow"},
    "unit/contract": {"slow"},
    "unit/client/source/test_cycles.py": {"slow"},
    "unit/client/source/test_processes.py": {"slow"},
    "unit/core/test_signals.py": {"slow"},
    "unit/detached/test_collected.py": {"slow"},
    "unit/detached/test_same_bytes.py": {"slow"},
    "unit/detached/test_shortages.py": {"slow"},
    "unit/flask_skin/test_extensions.py": {"slow"},
    "unit/flask_skin/test_wire.py": {"live"},
    "unit/server/test_admission.py": {"slow"},
    "unit/server/test_descriptors.py": {"slow"},
    "unit/server/test_shutdown.py": {"slow"},
    "unit/testing/test_plugin.py": {"slow"},
}
#: pytest-django's fixtures that every test gets: a third of the time of a short test, and they do something only for
#: Django's test client, mails, sites and marks.
OF_DJANGO = {
    "_dj_autoclear_mailbox",
    "_django_clear_site_cache",
    "_django_db_marker",
    "_django_isolate_apps",
    "_django_set_urlconf",
    "_django_setup_unittest",
    "_fail_for_invalid_template_variable",
    "_live_server_helper",
    "_template_string_if_invalid_marker",
}
#: Rooms without a Django application.
WITHOUT_DJANGO = ("channels", "cli", "client", "contract", "core", "detached", "keeper", "server", "wire")
#: Rooms in which no stream is made, so that none can be left over.
WITHOUT_STREAMS = ("client", "wire")
OF_STREAMS = {"dropped_streams_end_with_their_test"}


@functools.cache
def marks_of(path: Path) -> frozenset[str]:
    """The marks that follow from a path: the same for all tests of a file, of which there are thousands."""
    if not path.is_relative_to(TESTS):
        return frozenset()
    relative = path.relative_to(TESTS)
    places = (place.as_posix() for place in (relative, *relative.parents))
    return frozenset(mark for place in places for mark in BY_PLACE.get(place, ()))


def mark_by_place(items: list[pytest.Item]) -> None:
    """Give each test the marks of its place; a test with a redis-server is slow too."""
    for item in items:
        redis = {"slow"} if isinstance(item, pytest.Function) and starts_redis(item) else set()
        for name in sorted(marks_of(item.path) | redis):
            item.add_marker(name)


def starts_redis(item: pytest.Function) -> bool:
    """Whether a test has a redis-server, by a fixture or as one of the brokers that it is repeated for."""
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return "redis_server" in item.fixturenames or "redis" in given


@functools.cache
def needless_fixtures(path: Path) -> frozenset[str]:
    """The fixtures for every test that do nothing for those of a file."""
    room = path.relative_to(TESTS / "unit").parts[0] if path.is_relative_to(TESTS / "unit") else ""
    return frozenset(
        (OF_DJANGO if room in WITHOUT_DJANGO else set()) | (OF_STREAMS if room in WITHOUT_STREAMS else set())
    )


@functools.cache
def asks_for_monkeypatch(function: Callable[..., object]) -> bool:
    """Whether it is a parameter of a test's function, of which there may be many items."""
    return "monkeypatch" in inspect.signature(function).parameters


def leave_out_needless_fixtures(item: pytest.Item) -> None:
    """Drop those fixtures from a test that do nothing for it, and ``monkeypatch``, which they alone would have made."""
    needless = needless_fixtures(item.path)
    names = getattr(item, "fixturenames", [])
    if needless and isinstance(item, pytest.Function) and "db" not in names:
        if not asks_for_monkeypatch(item.function):
            needless |= {"monkeypatch"}
        names[:] = [name for name in names if name not in needless]


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


def leave_out_matrix(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases with the mark ``matrix``, unless they were asked for."""
    if "matrix" in config.getoption("markexpr") or any("::" in argument for argument in config.args):
        return
    further = [item for item in items if item.get_closest_marker("matrix")]
    if further:
        config.hook.pytest_deselected(items=further)
        items[:] = [item for item in items if not item.get_closest_marker("matrix")]


def is_quick(expression: str) -> bool:
    """Whether a run leaves the slow tests out."""
    return is_left_out(TESTS / "load", expression)
