"""What tests in more than one folder need."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from ssesync import streams

from .live.switchboard import Switchboard
from .logs import LOGS, SHOWN

# How long an example takes is the machine's affair.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def dropped_streams_end_with_their_test() -> Iterator[None]:
    """A stream that a test has dropped in a reference cycle ends whenever garbage is collected: in the middle of
    another test, which then sees its log line, or still counts it as open."""
    yield
    if streams.snapshot()["streams"]:
        gc.collect()


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    with Switchboard() as switchboard:
        yield switchboard


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for log, title in item.stash.get(LOGS, {}).items():
            report.sections.append((f"log of {title}", log()[-SHOWN:]))
    return report
