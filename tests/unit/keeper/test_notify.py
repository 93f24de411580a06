"""Notifications to a service manager, which is a datagram socket here."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssesync.keeper.notify import notify, reloading


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        if request.param == "a path":
            listener.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        elif sys.platform != "linux":
            pytest.skip("abstract names are Linux'")
        else:
            listener.bind("")  # the system chooses a name
            monkeypatch.setenv("NOTIFY_SOCKET", f"@{listener.getsockname()[1:].decode()}")
        yield listener


def test_a_notification_has_one_assignment_a_line(manager: socket.socket) -> None:
    assert notify("MAINPID=4711", "STATUS=passes clients on")
    assert manager.recv(1000) == b"MAINPID=4711\nSTATUS=passes clients on"


def test_a_reload_has_its_time(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    assert reloading()
    first, _, last = manager.recv(1000).decode().partition("\n")
    assert first == "RELOADING=1"
    assert before <= int(last.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    assert not notify("READY=1")


def test_a_manager_that_is_gone_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    with caplog.at_level(logging.WARNING, "ssesync"):
        assert not notify("READY=1")
    assert str(tmp_path / "gone") in caplog.text
