"""Where the tests of a module are, and how large modules, classes and functions may be.

``ssesync/<room>/<module>.py`` is tested by ``tests/unit/<room>/test_<module>.py``, by a folder of its name, or with its
package: ``brokers/redis/link.py`` by ``test_redis.py``. A module outside the rooms belongs to ``core``. Others are
tested through what uses them, and ``THROUGH`` says by which file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ssesync
from tests.order import FIRST, SHARING
from tests.syntax import parsed, statements

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "tests" / "unit"
PACKAGE = Path(ssesync.__file__).parent
#: Tested by their commands and fixtures, which are several modules each.
BY_USE = {"cli", "testing"}

THROUGH = {
    # A contract, a record, names or constants: there is nothing to call.
    "channels/backend": "channels/test_contract",
    "channels/entry": "channels/test_contract",
    "channels/log": "channels/test_subscriber",
    "channels/runs/answer": "flask_skin/test_runs",
    "channels/policy": "channels/test_overflow",
    "detached/head": "detached/test_handover",
    "detached/group": "detached/test_state",
    "detached/source": "detached/test_connections",
    "lock_order": "core/test_locks",
    "channels/keywords": "core/test_options",
    "client/options": "core/test_options",
    "server/options": "core/test_options",
    "producing": "server/test_source",
    "server/spec": "server/test_stream",
    "server/limits": "server/test_admission",
    "server/stats": "server/test_stream",
    "server/status": "server/test_stream",
    # Part of a class whose behaviour users see, and tested by that.
    "channels/answer": "flask_skin/test_channels",
    "channels/brokers/acceptance": "channels/test_contract",
    "channels/brokers/connection": "channels/test_reentry",
    "channels/brokers/delivery": "channels/test_reentry",
    "channels/brokers/listener": "channels/test_contract",
    "channels/brokers/presence": "channels/test_sqlite",
    "channels/channel_source": "channels/test_broadcast",
    "channels/dispatcher": "channels/test_index",
    "channels/revocations": "channels/test_transfer",
    "detached/pieces": "channels/test_batch",
    "detached/transfer": "channels/test_transfer",
    "channels/forks": "channels/test_contract",
    "channels/message": "channels/test_batch",
    "channels/queue": "channels/test_overflow",
    "channels/starting": "channels/test_contract",
    "channels/completion": "channels/test_subscribing",
    "channels/subscriber_ends": "channels/test_subscriber",
    "channels/runs/options": "channels/runs/test_run",
    "channels/runs/writer": "channels/runs/test_run",
    "channels/runs/ending": "channels/runs/test_run",
    "channels/runs/methods": "channels/runs/test_run",
    "channels/runs/request": "channels/runs/test_run",
    "channels/runs/owner": "channels/runs/test_process",
    "channels/runs/production": "channels/runs/test_run",
    "channels/subscription": "channels/test_subscriber",
    "channels/upstream": "channels/test_feed",
    "client/cancel_adapter": "client/test_cancel",
    "client/connect": "client/source/test_statuses",
    "client/following": "client/source/test_waits",
    "client/session": "client/test_interim",
    "client/watchdog": "client/test_errors",
    "detached/accounting": "detached/test_connections",
    "detached/broadcast": "channels/test_distinct",
    "detached/connection": "detached/test_connections",
    "detached/detacher": "detached/test_handover",
    "detached/disconnecting": "detached/test_connections",
    "detached/sending": "detached/test_connections",
    "detached/holder": "keeper/test_process",
    "keeper/batch": "keeper/test_importing",
    "keeper/client": "keeper/test_process",
    "keeper/draining": "keeper/test_process",
    "keeper/listening": "keeper/test_peer",
    "keeper/message": "keeper/test_framing",
    "keeper/lifeline": "keeper/test_upgrade",
    "keeper/siblings": "../live/siblings/test_siblings",
    "keeper/mover": "keeper/test_process",
    "keeper/reserving": "keeper/test_process",
    "keeper/status": "keeper/test_process",
    "lock_check": "core/test_locks",
    "server/bridge": "channels/runs/test_producing",
    "server/checks": "server/test_stream",
    "server/closing": "server/test_ending",
    "server/detaching": "detached/test_handover",
    "server/factory": "server/test_source",
    "server/force_close": "detached/test_handover",
    "server/leaving": "detached/test_feed",
    "server/producer": "server/test_source",
    "server/record": "detached/test_connections",
    "server/upstream": "detached/test_relaying",
    "timers": "core/test_reactor",
    "thread_start": "core/test_reactor",
    "receiving": "client/test_tap",
    "wire/body": "client/test_tap",
    "wire/blocks": "../live/relay/test_bytes",
    "server/registry": "server/test_admission",
    # It needs what only a broker of several processes or a framework gives.
    "channels/opening": "channels/test_redis",
    "channels/options": "channels/test_sqlite",
    "channels/tickets": "flask_skin/test_channels",
    # It refuses clients, as other modules do.
    "detached/last_answer": "server/test_refusal",
    "server/refusing": "server/test_refusal",
    "server/wsgi_server": "server/test_accepting",
    # A contract that every broker is held to.
    "channels/broker": "channels/test_contract",
    "channels/publishing": "channels/test_contract",
    # The name of another module, kept for those who import it.
    "client/backoff": "client/source/test_waits",
    # It needs real servers or other packages.
    "client/relay": "../live/relay/test_bytes",
    "client/forwarding": "../live/relay/test_request",
    "client/exchange": "detached/test_requesting",
    "greenlets": "../live/frameworks/test_gevent_patched",
    "gunicorn": "../live/streams/test_stopping",
    "prometheus": "server/test_admission",
}
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("__") and path.relative_to(PACKAGE).parts[0] not in BY_USE
)


def is_tested_by_name(module: str) -> bool:
    """Whether a module, or the package inside a room that it belongs to, has a test module or folder of its name."""
    *rooms, name = module.split("/")
    room = UNIT / (rooms[0] if rooms else "core")
    names = [name, *rooms[2:]]
    return any((room / each).is_dir() or any(room.rglob(f"test_{each}.py")) for each in names)


def test_every_module_of_the_core_has_a_test_of_its_name_or_a_reason() -> None:
    for module in (module for module in MODULES if not is_tested_by_name(module)):
        assert module in THROUGH, f"add tests/unit/{module.replace('/', '/test_', 1)}.py, or the file that tests it"
        tests = UNIT / f"{THROUGH[module]}.py"
        assert tests.resolve().exists(), f"{tests}, which tests {module}, is gone"


def test_only_modules_without_a_test_of_their_own_have_a_reason() -> None:
    assert set(THROUGH) == {module for module in MODULES if not is_tested_by_name(module)}


def test_the_files_that_share_servers_are_there() -> None:
    tests = ROOT / "tests"
    for folder, names in SHARING.items():
        assert not [name for name in names if not (tests / folder / name).exists()], folder
    assert not [name for name in FIRST if not (tests / name).exists()]


#: Lines of a module and of a function, attributes of an instance.
LINES, LINES_OF_A_FUNCTION, ATTRIBUTES = 400, 60, 15
SOURCES = sorted(
    path for name in ("ssesync", "ssesync_flask", "ssesync_django") for path in (ROOT / name).rglob("*.py")
)


def test_what_takes_long_to_import_is_not_imported_where_tests_are_collected() -> None:
    # Each process of a run collects all tests: the three took almost half of the time. See later.py, browser/driver.py.
    early = re.compile(r"^(?:import|from) (?:anthropic|openai|selenium)\b", re.MULTILINE)
    ours = [path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts]
    assert [path for path in ours if early.search(path.read_text("utf-8"))] == []


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its parameters and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def attributes(of: ast.ClassDef) -> set[str]:
    """The attributes that the methods of a class set on their instance."""
    return {
        node.attr
        for node in ast.walk(of)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def too_large(path: Path) -> Iterator[str]:
    """What exceeds its limit in a module."""
    source = path.read_text("utf-8")
    if (count := len(source.splitlines())) > LINES:
        yield f"{count} lines"
    for node in statements(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and lines_of(node) > LINES_OF_A_FUNCTION:
            yield f"{node.name}() has {lines_of(node)} lines"
        if isinstance(node, ast.ClassDef) and len(attributes(node)) > ATTRIBUTES:
            yield f"{node.name} has {len(attributes(node))} attributes"


@pytest.mark.skipif(not (ROOT / "ssesync").is_dir(), reason="the tests of an installed package")
def test_no_module_function_or_class_exceeds_its_limit() -> None:
    found = {str(path.relative_to(ROOT)): [*too_large(path)] for path in SOURCES}
    assert not {path: what for path, what in found.items() if what}
