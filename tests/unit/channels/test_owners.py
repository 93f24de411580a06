"""Owners of runs in an SQLite file: that one has ended shows at once, however it was ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssesync import Broker, open_broker
from ssesync.channels.brokers.sqlite import owners
from ssesync.channels.runs.record import RunRecord, RunState

from .test_contract import eventually

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "channels.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    with open_broker(url) as broker:
        yield broker


def process(what: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.channels.processes", what, *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def elsewhere(url: str) -> str:
    """The abandoned runs that another process finds."""
    return process("abandoned", url).communicate(timeout=60)[0].strip()


def own(broker: Broker, lease: float, name: str = "r") -> None:
    assert broker._renew_owner(name, lease)
    record = RunRecord(name, name, RunState.RUNNING, "", "", time.time(), 60.0, 0.0)
    assert broker._begin_run(record, None, False)[0]


def abandoned(broker: Broker) -> list[str]:
    return [found.name for found in broker._abandoned()]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_that_a_process_has_ended_shows_before_its_lease_is_over(broker: Broker, url: str, how: signal.Signals) -> None:
    owner = process("own_run", url)
    assert owner.stdout is not None
    owner.stdout.readline()
    assert abandoned(broker) == []
    owner.send_signal(how)
    owner.wait(90)
    owner.stdout.close()
    assert abandoned(broker) == ["r"]
    assert abandoned(broker) == ["r"]  # until its final event is there


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_child_neither_keeps_nor_ends_what_its_parent_owns(broker: Broker, url: str) -> None:
    owner = process("own_run", url, "forks")
    assert owner.stdout is not None
    child, _, found = owner.stdout.readline().strip().partition(" ")
    try:
        assert found == "[]"
        assert abandoned(broker) == []
        owner.kill()
        owner.wait(90)
        assert abandoned(broker) == ["r"]
    finally:
        os.kill(int(child), signal.SIGKILL)
        owner.stdout.close()
    eventually(lambda: sorted(abandoned(broker)) == ["child's", "r"])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_child_that_ends_leaves_its_parent_the_owner(broker: Broker, url: str) -> None:
    own(broker, 3600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of CPython 3.12 and later: there are threads
        child = os.fork()
    if not child:
        broker._abandoned()  # opens the file with the locks
        own(broker, 3600, "child's")
        broker.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert elsewhere(url) == '["child\'s"]'


def test_a_broker_that_is_closed_owns_nothing(broker: Broker, url: str) -> None:
    with open_broker(url) as other:
        own(other, 3600)
        own(other, 3600, "r2")
        assert abandoned(broker) == []
    assert abandoned(broker) == ["r", "r2"]


@pytest.mark.slow
def test_code_that_closes_the_file_with_the_locks_unlocks_them_until_the_lease_is_renewed(
    path: Path, broker: Broker, url: str
) -> None:
    own(broker, 3600)
    assert elsewhere(url) == "[]"
    path.with_name(f"{path.name}-owners").read_bytes()
    assert broker._renew_owner("r", 3600)
    assert elsewhere(url) == "[]"


@pytest.mark.parametrize("what", ["no locks", "deleted", "replaced"])
def test_without_the_locks_the_lease_counts(
    path: Path, broker: Broker, url: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "no locks":
        monkeypatch.setattr(owners, "lock_file", lambda database: None)
    with open_broker(url) as other:
        own(other, 3600)
        if what != "no locks":
            locks = path.with_name(f"{path.name}-owners")
            locks.unlink()
            if what == "replaced":
                path.with_name("other").write_bytes(b"")
                path.with_name("other").rename(locks)
    # Nobody holds a lock any more, but that can't be seen.
    assert abandoned(broker) == []
    with open_broker(url) as third:
        own(third, 0.05, "r3")
        eventually(lambda: abandoned(broker) == ["r3"])


def test_a_name_that_is_spent_keeps_no_lock(broker: Broker, url: str) -> None:
    with open_broker(url) as other:
        for number in range(5):
            assert broker._renew_owner(str(number), 0.0001)
            eventually(lambda: not broker._owners._has_lease(_rows(broker)[0]))  # type: ignore[attr-defined]
            other._abandoned()
            assert not broker._renew_owner(str(number), 60)
        locks = broker._owners  # type: ignore[attr-defined]
        assert (locks._added, locks._held) == ({}, {})
        assert not broker._renew_owner("4", 60)


def _rows(broker: Broker) -> list[owners.runs.Owner]:
    with broker._read.transaction() as connection:  # type: ignore[attr-defined]
        return owners.runs.owners(connection)
