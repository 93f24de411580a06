"""The memory broker, and what URLs and options it and the others take."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from ssesync import SettingsError, open_broker
from ssesync.channels.brokers.memory.broker import MemoryBroker

from ...cases import each_case


def test_a_server_of_several_processes_is_warned_once_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with open_broker("memory://") as broker, caplog.at_level(logging.WARNING, "ssesync"):
        broker.warn_once({"wsgi.multiprocess": False})
        assert not caplog.records
        for _ in range(2):
            broker.warn_once({"wsgi.multiprocess": True})
    (record,) = caplog.records
    assert "sqlite:///" in record.getMessage()


def test_the_log_in_memory_is_bounded_in_all_ways() -> None:
    with open_broker("memory://?max_events=7&max_bytes=2000&max_channels=5") as broker:
        assert isinstance(broker, MemoryBroker)
        for n in range(2000):
            broker.publish(f"c{n % 9}", "x" * (n % 300))
        assert len(broker._log.logs) == 5
        for log in broker._log.logs.values():
            assert len(log.entries) <= 7
            assert log.size == sum(len(message) for _, _, message in log.entries) <= 2000


@each_case(
    "url, problem",
    [
        ("memory://?max_event=5", "did you mean 'max_events'"),
        ("memory://?max_events=0", "max_events takes a whole number above 0"),
        ("memory://?max_events=many", "max_events can't be 'many'"),
        ("memory://?max_events=1&max_events=2", "twice"),
        ("memory://?max_age=-1", "max_age"),
        ("memory://host", "takes options only"),
        ("sqlite:///x.db?pol=1", "did you mean 'poll'"),
        ("sqlite:///x.db?poll=0", "poll takes a number above 0"),
        ("redis://localhost?socket_timout=1", "did you mean 'socket_timeout'"),
        ("redis://localhost?decode_responses=yes", "unknown broker option"),
        ("redis://localhost?prefix={x}", "prefix"),
        ("redis://localhost?db=first", "db"),
        ("postgres://x", "no broker has the URL"),
        ("", "the broker.s URL is empty"),
        (" ", "the broker.s URL is empty"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        open_broker(url)


def test_options_may_be_given_by_name_and_none_means_without_end() -> None:
    with open_broker("memory://?max_age=none&max_events=5", max_bytes=99) as broker:
        assert (broker.limits.max_age, broker.limits.max_events, broker.limits.max_bytes) == (None, 5, 99)
    with pytest.raises(TypeError):
        open_broker(None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_brokers_load_no_more_than_they_need() -> None:
    code = """
import sys
from ssesync import open_broker
open_broker("memory://").publish("a", "x")
assert "redis" not in sys.modules and "sqlite3" not in sys.modules and "requests" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_channels_without_subscribers_leave_no_entry_in_the_dispatcher() -> None:
    with open_broker("memory://") as broker:
        for number in range(100):
            broker.subscribe(f"order:{number}", patterns=[f"order:{number}:*"], key=str(number)).close()
        dispatcher = broker.dispatcher
        left = {name: value for name, value in vars(dispatcher).items() if isinstance(value, (dict, set)) and value}
        assert left == {}
        broker.subscribe("a")
        with broker.subscribe("b"):
            assert dispatcher.take_changed() == {"b": 1}
        assert dispatcher.take_changed() == {"b": 0}
