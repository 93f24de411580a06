"""Which keeper a broker has, by its own setting or the environment's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssesync import SettingsError, open_broker
from ssesync.keeper.client import KeeperClient
from ssesync.keeper.configuration import find_holder


def test_without_a_setting_and_a_variable_there_is_no_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSESYNC_KEEPER", raising=False)
    broker = open_broker("memory://")
    assert broker.keeper is None
    assert broker.broadcast_groups.holder is None


def test_a_setting_counts_more_than_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSESYNC_KEEPER", "/run/app/keeper.sock")
    broker, other = open_broker(f"sqlite:///{tmp_path}/a"), open_broker(f"sqlite:///{tmp_path}/b")
    assert isinstance(holder := broker.broadcast_groups.holder, KeeperClient)
    assert broker.broadcast_groups.holder is holder
    other.keeper = ""
    assert other.broadcast_groups.holder is None


def test_the_clients_of_memory_stay_and_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    broker = open_broker("memory://")
    broker.keeper = "/run/app/keeper.sock"
    for _ in range(2):
        assert broker.broadcast_groups.holder is None
    assert caplog.text.count("a keeper has no effect: the log of memory:// is in this process alone") == 1


def test_a_mistake_is_an_error_where_it_is_set_and_a_log_line_where_it_is_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker: Any = open_broker("memory://")
    with pytest.raises(SettingsError, match="keeper takes the absolute path of a unix socket"):
        broker.keeper = "keeper.sock"
    monkeypatch.setenv("SSESYNC_KEEPER", "keeper.sock")
    assert find_holder(SimpleNamespace(keeper=None)) is None
    assert "SSESYNC_KEEPER takes the absolute path" in caplog.text
    assert "the clients stay in this process" in caplog.text
