"""SQLite files of the version before, and processes of it that use the same file."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ssesync import Broker, ChannelClosed, open_broker
from ssesync.channels.brokers.sqlite.file import Handle

from .conftest import published, texts
from .runs.test_contract import add, append, event, final
from .test_closing import begin, data, page

# The statements of that version.
_TABLES = """
CREATE TABLE IF NOT EXISTS ssesync_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ssesync_channel (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    trimmed INTEGER NOT NULL, tail INTEGER NOT NULL, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS ssesync_channel_tail ON ssesync_channel (tail);
CREATE TABLE IF NOT EXISTS ssesync_event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ssesync_event_channel ON ssesync_event (channel, seq);
CREATE TABLE IF NOT EXISTS ssesync_presence (
    channel TEXT NOT NULL, process TEXT NOT NULL, subscribers INTEGER NOT NULL, seen REAL NOT NULL,
    PRIMARY KEY (channel, process)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ssesync_claim (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""


class VersionBefore:
    """A process of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.executescript(_TABLES)
        if self.connection.execute("SELECT count(*) FROM ssesync_meta").fetchone() == (0,):
            boot = Path("/proc/sys/kernel/random/boot_id")
            meta = {"epoch": "0a1b2c3d", "base": 0, "lost": 0, "leapt": 0}
            meta["boot"] = boot.read_text().strip() if boot.exists() else None
            self.connection.executemany("INSERT INTO ssesync_meta VALUES (?, ?)", meta.items())
            self.connection.execute("INSERT INTO sqlite_sequence VALUES ('ssesync_event', 0)")

    def publish(self, channel: str, text: str, max_events: int = 1000, max_channels: int = 1000) -> str:
        run = self.connection.execute
        run("BEGIN IMMEDIATE")
        try:
            row = run("SELECT id, events, bytes, trimmed FROM ssesync_channel WHERE name = ?", (channel,)).fetchone()
            if row is None:
                (base,) = run("SELECT value FROM ssesync_meta WHERE name = 'base'").fetchone()
                add_channel = (
                    "INSERT INTO ssesync_channel (name, events, bytes, trimmed, tail, at) VALUES (?, 0, 0, ?, 0, 0)"
                )
                row = (run(add_channel, (channel, base)).lastrowid, 0, 0, base)
            id, events, size, trimmed = row
            body = f"data: {text}\n\n".encode()
            add_event = "INSERT INTO ssesync_event (channel, at, body) VALUES (?, ?, ?)"
            seq = run(add_event, (id, time.time(), body)).lastrowid
            events, size = events + 1, size + len(body)
            oldest = "SELECT seq, length(body) FROM ssesync_event WHERE channel = ? ORDER BY seq"
            for old, length in run(oldest, (id,)).fetchall()[: max(0, events - max_events)]:
                events, size, trimmed = events - 1, size - length, old
            run("DELETE FROM ssesync_event WHERE channel = ? AND seq <= ?", (id, trimmed))
            update = "UPDATE ssesync_channel SET events = ?, bytes = ?, trimmed = ?, tail = ?, at = ? WHERE id = ?"
            run(update, (events, size, trimmed, seq, time.time(), id))
            (channels,) = run("SELECT count(*) FROM ssesync_channel").fetchone()
            removed = "SELECT id, tail FROM ssesync_channel ORDER BY tail LIMIT ?"
            for old_id, tail in run(removed, (max(0, channels - max_channels),)).fetchall():
                run("DELETE FROM ssesync_event WHERE channel = ?", (old_id,))
                run("DELETE FROM ssesync_channel WHERE id = ?", (old_id,))
                run("UPDATE ssesync_meta SET value = max(value, ?) WHERE name = 'base'", (tail,))
            (epoch,) = run("SELECT value FROM ssesync_meta WHERE name = 'epoch'").fetchone()
            run("COMMIT")
        except BaseException:
            run("ROLLBACK")
            raise
        return f"{epoch}-{seq}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "channels.db"


@pytest.fixture
def before(path: Path) -> Iterator[VersionBefore]:
    process = VersionBefore(path)
    with closing(process.connection):
        yield process


@pytest.fixture
def broker(path: Path, before: VersionBefore) -> Iterator[Broker]:
    """It opens the file after a process of the version before."""
    with open_broker(f"sqlite:///{path}") as broker:
        yield broker


def test_a_file_of_the_version_before_is_upgraded_and_loses_nothing(before: VersionBefore, path: Path) -> None:
    ids = [before.publish("a", text) for text in "123"]
    with open_broker(f"sqlite:///{path}") as broker:
        assert data(page(broker, ids[0], "a")) == ["2", "3"]
        assert begin(broker, "a") == ["1", "2", "3"]
        with broker.subscribe("a", last_event_id=ids[1]) as subscription:
            assert before.publish("a", "4") == broker.position()
            published(broker, "a", "5")
            before.publish("b", "x")
            assert texts(subscription, 3) == ["3", "4", "5"]
            before.publish("a", "6", max_events=2)
            assert texts(subscription, 1) == ["6"]
        assert begin(broker, "a") == ["5", "6"]
        broker.publish("a", "7", final=True)
        add(broker)
        append(broker, event(1), final())
        assert begin(broker, "r") == ["1", "done"]


def test_many_that_open_such_a_file_at_the_same_time_upgrade_it_once(before: VersionBefore, path: Path) -> None:
    before.publish("a", "0")
    brokers = [open_broker(f"sqlite:///{path}") for _ in range(8)]
    threads = [threading.Thread(target=published, args=(broker, "a", "x")) for broker in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begin(brokers[0], "a") == ["0", *"x" * 8]
    for broker in brokers:
        broker.close()
    (version,) = before.connection.execute("SELECT value FROM ssesync_meta WHERE name = 'version'").fetchone()
    assert version == 2


def test_the_version_before_can_not_publish_behind_a_final_event(before: VersionBefore, broker: Broker) -> None:
    before.publish("a", "1")
    final_id = broker.publish("a", "2", final=True)
    with pytest.raises(sqlite3.IntegrityError, match="the channel is closed"):
        before.publish("a", "x")
    assert broker.position() == final_id
    before.publish("b", "x")
    with pytest.raises(ChannelClosed):
        broker.publish("a", "x")
    assert begin(broker, "a", "b") == ["1", "2", "x"]


def test_the_version_before_takes_the_refusal_for_one_that_leaves_the_file_alone(path: Path) -> None:
    with open_broker(f"sqlite:///{path}") as broker:
        broker.publish("a", "1", final=True)
    before = VersionBefore(path)
    with closing(before.connection), pytest.raises(sqlite3.IntegrityError) as refused:
        before.publish("a", "x")
    # Its branches are the same as those of this version.
    error = Handle(path, 1, threading.Event())._translated(refused.value)
    assert type(error).__name__ == "BrokerUnavailable"
    assert "the channel is closed" in str(error)
    assert "delete" not in str(error)


def test_the_version_before_can_not_write_to_a_run_nor_trim_or_remove_it(before: VersionBefore, broker: Broker) -> None:
    start = before.publish("a", "1")
    add(broker)
    add(broker, "empty")
    append(broker, event(1), event(2))
    with pytest.raises(sqlite3.IntegrityError, match="the channel is closed"):
        before.publish("r", "x")
    for channel in "bcd":
        before.publish(channel, "x", max_channels=1)
    assert begin(broker, "r") == ["1", "2"]
    assert broker.has_channel("empty")
    assert [broker.has_channel(channel) for channel in "abc"] == [False] * 3
    append(broker, event(3), final())
    assert begin(broker, "r") == ["1", "2", "3", "done"]
    # Those of the other channels are lost, and no others.
    assert page(broker, start, "c").lost == "trimmed"
    end = broker.position()
    assert page(broker, end, "none").lost == ""
    before.publish("e", "x", max_channels=1)
    assert page(broker, end, "none").lost == ""


def test_a_run_expires_in_an_upgraded_file(before: VersionBefore, broker: Broker) -> None:
    add(broker, retain=0.0)
    append(broker, event(1), final())
    time.sleep(0.01)
    assert add(broker).owner == "me"
    assert begin(broker, "r") == []
    assert before.connection.execute("SELECT count(*) FROM ssesync_event").fetchone() == (0,)
