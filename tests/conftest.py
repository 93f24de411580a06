"""What tests in more than one folder need."""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssesync import streams
from ssesync.executor import callers
from ssesync.reactor import reactor_if_any

from .live.frameworks.switchboard import Switchboard
from .lock_reports import new_reports, turn_on
from .logs import LOGS, SHOWN
from .marks import is_left_out, is_quick, leave_out_matrix, leave_out_needless_fixtures, mark_by_place
from .order import spread
from .profiles import load_profile
from .schedule import UnitScheduling
from .signals import handle_ignored_signals

# Every test runs with the check of the library's locks. The one lock that was made before is made again.
turn_on()
streams._reset()


def pytest_configure(config: pytest.Config) -> None:
    handle_ignored_signals()
    load_profile(config)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A quick run of all tests has three processes, unless ``-n`` is given: pytest-xdist starts them."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and is_quick(config.option.markexpr) and not hasattr(config, "workerinput"):
        # 0 where pytest-xdist is missing; None where -n was not given.
        given = config.getoption("numprocesses", 0)
        if given is None and not config.option.usepdb and not config.option.collectonly:
            config.option.numprocesses = 3


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return is_left_out(collection_path, config.getoption("markexpr")) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without collecting garbage, of which there is little, and exclude the tests' modules and items from
    later collections of garbage: one took 0.15 s, and many tests need one."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    leave_out_needless_fixtures(item)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark_by_place(items)
    leave_out_matrix(config, items)
    spread(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> UnitScheduling | None:
    return UnitScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def dropped_streams_end_with_their_test() -> Iterator[None]:
    """A stream that a test has dropped in a reference cycle ends whenever garbage is collected: in the middle of
    another test, which then sees its log line, or still counts it as open."""
    yield
    for generation in range(3):  # it is among the youngest objects, of which there are few
        if not streams.snapshot()["streams"]:
            break
        gc.collect(generation)
    if (current := reactor_if_any()) is not None:
        # It hands what was dropped to the threads that end it.
        handed_over = threading.Event()
        current.call_from_signal(handed_over.set)
        handed_over.wait(5)
        callers().wait(5)


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    with Switchboard() as switchboard:
        yield switchboard


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    broken = new_reports() if call.when == "teardown" else ""
    if broken:
        title = "a law of the locks was broken while this test ran, perhaps by a process that it had started"
        report.sections.append((title, broken))
        if report.passed:
            report.outcome, report.longrepr = "failed", f"{title}:\n\n{broken}"
    if report.failed:
        for log, title in item.stash.get(LOGS, {}).items():
            report.sections.append((f"log of {title}", log()[-SHOWN:]))
    return report
