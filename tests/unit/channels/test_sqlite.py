"""The SQLite broker: files that are deleted, corrupt or full, processes that are killed or fork."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssesync import (
    Broker,
    BrokerDamaged,
    BrokerUnavailable,
    CloseReason,
    SettingsError,
    StreamClosed,
    Subscription,
    open_broker,
)
from ssesync.channels.brokers.sqlite import file as sqlite_file
from ssesync.channels.brokers.sqlite.broker import SQLiteBroker

from ...cases import each_case
from .conftest import got, numbered, published, texts
from .test_contract import eventually, place

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "channels.db"


@pytest.fixture
def broker(path: Path) -> Iterator[Broker]:
    with open_broker(f"sqlite:///{path}") as broker:
        yield broker


def reopened(path: Path, **options: object) -> Broker:
    return open_broker(f"sqlite:///{path}", **options)


def publishing(url: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.unit.channels.processes", "publish", url, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def check_a_killed_publisher(url: str, broker: Broker, subscription: Subscription) -> None:
    """Kill a process that publishes to channel ``a``: all that it has reported as published must come, in order."""
    process = publishing(url, 100_000)
    assert process.stdout is not None
    reported = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    reported += process.stdout.readlines()
    process.wait(90)
    process.stdout.close()
    last = int(reported[-1])
    assert texts(subscription, last + 1) == numbered(last + 1)
    published(broker, "a", "end")
    rest = texts(subscription, 1)
    if rest != ["end"]:  # published, and killed before it could report it
        assert [*rest, *texts(subscription, 1)] == [str(last + 1), "end"]


@pytest.mark.slow
def test_what_another_process_publishes_comes_whatever_becomes_of_that_process(path: Path, broker: Broker) -> None:
    with broker.subscribe("a", patience=60) as subscription:
        for _ in range(3):
            check_a_killed_publisher(f"sqlite:///{path}", broker, subscription)


@pytest.mark.slow
def test_processes_that_fork_go_on_each_by_itself(path: Path) -> None:
    assert (
        forked(f"sqlite:///{path}")
        == "0 2 False ['of the child', 'of the parent'] True ['of the child', 'of the parent']"
    )


@pytest.mark.slow
def test_a_forked_child_of_a_memory_broker_has_a_log_of_its_own() -> None:
    assert forked("memory://") == "0 1 True ['of the child'] True ['of the parent']"


@pytest.mark.slow
@pytest.mark.parametrize(("url", "warnings"), [("memory://", 1), ("sqlite:///{}", 0)])
def test_publishing_in_a_forked_child_that_nobody_has_subscribed_in_is_warned_of_once_for_memory_alone(
    path: Path, url: str, warnings: int
) -> None:
    run = in_processes("publish_in_child", url.format(path))
    assert run.stderr.count("it reaches the subscribers of this process alone, and this process has none") == warnings


def forked(url: str) -> str:
    return in_processes("fork", url).stdout.strip()


def in_processes(what: str, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.unit.channels.processes", what, url]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    return run


@pytest.mark.parametrize("what", ["trimmed", "removed"])
def test_where_a_revocation_is_lost_before_it_is_read_all_that_have_a_key_end(
    path: Path, broker: Broker, what: str
) -> None:
    ada, anyone = broker.subscribe("a", key="ada"), broker.subscribe("a")
    with broker._follow._lock, open_broker(f"sqlite:///{path}") as other:  # type: ignore[attr-defined]
        other.revoke("ada")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (channel,) = connection.execute("SELECT id FROM ssesync_channel WHERE name = '\x01control'").fetchone()
            connection.execute("DELETE FROM ssesync_event WHERE channel = ?", (channel,))
            if what == "trimmed":
                connection.execute("UPDATE ssesync_channel SET trimmed = tail WHERE id = ?", (channel,))
            else:
                connection.execute("UPDATE ssesync_meta SET value = (SELECT tail FROM ssesync_channel WHERE id = ?) "
                                   "WHERE name = 'base'", (channel,))  # fmt: skip
                connection.execute("DELETE FROM ssesync_channel WHERE id = ?", (channel,))
            connection.commit()
        published(other, "a", "1")
    assert ada.take(30) is None
    assert ada.reason is CloseReason.REVOKED
    assert texts(anyone, 1) == ["1" if what == "trimmed" else '{"reason":"trimmed"}']


def test_a_full_disk_is_an_error_of_publish_alone(path: Path, broker: Broker) -> None:
    with broker.subscribe("a") as subscription:
        published(broker, "a", "1")
        with broker._write._lock:  # type: ignore[attr-defined]
            connection = broker._write._current()  # type: ignore[attr-defined]
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(BrokerUnavailable, match="full"):
            published(broker, "b", *["x" * 10_000] * 100)
        with broker._write._lock:  # type: ignore[attr-defined]
            connection.execute("PRAGMA max_page_count = 1000000")
        published(broker, "a", "2")
        assert texts(subscription, 2) == ["1", "2"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="limits of a file's size are tried on Linux")
def test_a_disk_that_accepts_no_more_is_an_error_of_publish(path: Path) -> None:
    code = """
import resource, signal, sys
from ssesync import BrokerUnavailable, open_broker
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
broker = open_broker("sqlite:///" + sys.argv[1])
first = broker.publish("a", "1")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    for _ in range(100):
        broker.publish("a", "x" * 10_000)
except BrokerUnavailable as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    broker.publish("a", "2")
    print("raised")
    broker.close()
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.stdout == "raised\n", run.stderr
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_deleted_file_is_logged_and_ends_subscribers_that_read_the_log(path: Path, broker: Broker) -> None:
    ids = published(broker, "a", *numbered(150))
    resuming = broker.subscribe("a", last_event_id=ids[0])
    path.unlink()
    with pytest.raises(BrokerDamaged, match="deleted"):
        broker.publish("a", "more")
    with pytest.raises(BrokerDamaged, match="deleted"):
        broker.subscribe("a")
    assert len(resuming.take(5) or ()) == 100  # the first page was read before
    assert resuming.take(5) is None
    assert resuming.reason is CloseReason.ERROR


def test_a_replaced_file_is_used_and_its_subscribers_get_a_reset(path: Path, broker: Broker) -> None:
    published(broker, "a", "1")
    subscription = broker.subscribe("a")
    path.unlink()
    with pytest.raises(BrokerDamaged):
        broker.publish("a", "x")
    assert subscription.get(0.01) is None
    with reopened(path) as other:
        published(other, "a", "first")
        (reset,) = got(subscription, 1)
        assert (reset.type, reset.json()) == ("reset", {"reason": "restarted"})
        published(broker, "a", "second")
        (text,) = texts(subscription, 1)
        # It may have found the new file before there was anything in it.
        assert text == "second" or [text, *texts(subscription, 1)] == ["first", "second"]
    subscription.close()


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_log_is_an_error_with_the_remedy(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with reopened(path) as broker:
        with pytest.raises(BrokerDamaged, match="delete it together with"):
            broker.publish("a", "x")
        with pytest.raises(BrokerDamaged):
            broker.subscribe("a")
        for each in path.parent.iterdir():
            each.unlink()
        broker.publish("a", "x")


def test_a_file_that_becomes_corrupt_in_use_is_an_error(path: Path, broker: Broker) -> None:
    published(broker, "a", *("x" * 1000 for _ in range(50)))
    broker._release()  # into the file itself
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(BrokerDamaged, match="corrupt"):
        published(broker, "a", *numbered(10))


@pytest.mark.parametrize("events", [3, 300], ids=["in the -wal alone", "in the file too"])
def test_a_file_that_is_overwritten_in_use_is_an_error_of_publish(
    path: Path, broker: Broker, events: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pages are in SQLite's memory, and what is published would go into the -wal."""
    subscription = broker.subscribe("a", patience=60)
    published(broker, "a", *("x" * 1000 for _ in range(events)))
    size = path.stat().st_size
    texts(subscription, events)
    with path.open("r+b") as file:
        file.write(os.urandom(size))
    with pytest.raises(BrokerDamaged, match="delete it together with"):
        broker.publish("a", "lost")
    eventually(lambda: "corrupt or no log of ssesync" in caplog.text)  # logged by the listener
    subscription.close()


def test_a_file_that_is_emptied_in_use_is_an_error_until_it_is_deleted(path: Path, broker: Broker) -> None:
    published(broker, "a", *("x" * 1000 for _ in range(300)))
    os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(BrokerDamaged, match="delete it together with"):
            broker.publish("a", "lost")
    for each in path.parent.iterdir():
        each.unlink()
    with reopened(path) as other:
        other.publish("a", "x")
    broker.publish("a", "x")


@pytest.mark.slow
def test_an_overwritten_page_is_an_error_or_no_event_is_lost(path: Path) -> None:
    """The header is whole: what SQLite can't know is what it does not read."""
    with reopened(path) as broker, reopened(path) as other:
        for seed in range(20):
            chance = random.Random(seed)
            start = broker.publish("a", "start")
            subscription = other.subscribe("a", patience=60)
            published(broker, "a", *("x" * 1000 for _ in range(chance.choice((3, 300)))))
            with path.open("r+b") as file:
                pages = path.stat().st_size // 4096
                for page in chance.sample(range(1, pages), min(pages - 1, chance.randint(1, 20))):
                    file.seek(4096 * page)
                    file.write(chance.randbytes(4096))
            try:
                last = broker.publish("a", "last")
                with other.subscribe("a", last_event_id=start) as resuming:
                    while got(resuming, 1)[0].id != last:
                        pass
            except (BrokerDamaged, StreamClosed):
                for each in (broker, other):
                    each._release()
                for file_ in path.parent.iterdir():
                    file_.unlink()
                with contextlib.suppress(BrokerDamaged):
                    broker.publish("a", "x")
                with reopened(path) as third:
                    third.publish("a", "x")
            else:
                while got(subscription, 1)[0].id != last:
                    pass
            subscription.close()


def test_looking_at_the_header_leaves_the_locks_that_keep_others_from_taking_the_log_for_unused(
    path: Path, broker: Broker
) -> None:
    published(broker, "a", "1")
    os.utime(path)  # as if it were written: the header is read
    ids = published(broker, "a", "2")
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM ssesync_event').fetchone()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=200)
    assert path.with_name("channels.db-wal").exists()  # the last to leave deletes it
    published(broker, "a", "3")
    with reopened(path) as other, other.subscribe("a", last_event_id=ids[0]) as subscription:
        assert texts(subscription, 1) == ["3"]


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with reopened(tmp_path / "none" / "x.db") as broker, pytest.raises(BrokerUnavailable, match="no such directory"):
        broker.publish("a", "x")


def test_a_lock_of_another_process_is_an_error_after_the_timeout(path: Path, broker: Broker) -> None:
    published(broker, "a", "1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with reopened(path, busy_timeout=0.1) as hurried, pytest.raises(BrokerUnavailable, match="locked"):
        hurried.publish("a", "x")
    with broker.subscribe("a", last_event_id="x") as subscription:  # who reads needs no such lock
        assert got(subscription, 1)[0].type == "reset"
    other.execute("ROLLBACK")
    other.close()
    published(broker, "a", "2")


@pytest.mark.slow
def test_threads_that_publish_at_the_same_time_wait_for_a_lock_together(path: Path) -> None:
    with reopened(path, busy_timeout=1) as broker:
        broker.publish("a", "1")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused: list[BrokerUnavailable] = []

        def publish() -> None:
            with pytest.raises(BrokerUnavailable, match="locked by another process") as caught:
                broker.publish("a", "x")
            refused.append(caught.value)

        threads = [threading.Thread(target=publish) for _ in range(100)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 100
        assert time.monotonic() - began < 60  # one after the other they would take 100 s
        other.close()
        broker.publish("a", "2")


@pytest.mark.slow
def test_the_file_stays_small_however_much_is_published(path: Path) -> None:
    with reopened(path, max_events=10, max_channels=5) as broker:
        for n in range(600):
            broker.publish(f"c{n % 20}", "x" * 2000)
        broker._release()
        assert path.stat().st_size < 1_000_000
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*) FROM ssesync_channel").fetchone() == (5,)
        connection.close()


def test_after_a_crash_of_the_machine_no_number_is_given_out_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    boot.write_text("first\n")
    monkeypatch.setattr(sqlite_file, "_BOOT_ID", boot)
    with reopened(path) as broker:
        ids = published(broker, "a", "1", "2")
    boot.write_text("second\n")
    with reopened(path) as broker:
        (later,) = published(broker, "a", "3")
        assert place(later)[1] > place(ids[1])[1] + 1000
        epoch, seq = place(ids[1])
        with broker.subscribe("a", last_event_id=ids[0]) as subscription:
            assert texts(subscription, 2) == ["2", "3"]
        with broker.subscribe("a", last_event_id=f"{epoch}-{seq + 5}") as subscription:  # lost in the crash
            assert got(subscription, 1)[0].json() == {"reason": "unknown"}


def test_a_process_that_nobody_heard_of_for_long_is_not_counted(path: Path, broker: Broker) -> None:
    published(broker, "a", "1")
    connection = sqlite3.connect(path)
    with connection:
        rows = [("a", "dead", 5, time.time() - 100), ("a", "alive", 2, time.time())]
        connection.executemany("INSERT INTO ssesync_presence VALUES (?, ?, ?, ?)", rows)
    connection.close()
    assert broker.subscriber_count("a") == 2


def test_a_process_whose_presence_has_expired_announces_it_again(
    path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssesync.channels.brokers.presence._HEARTBEAT", 0.05)
    other = reopened(path)
    subscription = broker.subscribe("a")
    deadline = time.monotonic() + 90
    while other.subscriber_count("a") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM ssesync_presence")  # as others do after half a minute
    connection.close()
    while other.subscriber_count("a") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    subscription.close()
    other.close()


@pytest.mark.slow
def test_idle_subscribers_cost_next_to_nothing(broker: Broker) -> None:
    subscription = broker.subscribe("a")
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(1)
    assert time.process_time() - before < 0.2
    subscription.close()


def test_a_relative_path_is_that_of_where_the_broker_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_broker("sqlite:///a%20b.db?poll=0.01") as broker:
        os.chdir("/")
        broker.publish("a", "x")
    assert (tmp_path / "a b.db").exists()


@each_case(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/path",
        "sqlite:channels.db",
        "sqlite:/srv/channels.db",
    ],
)
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="sqlite:////absolute"):
        open_broker(url)


@pytest.mark.slow
def test_a_reader_that_can_not_read_the_log_goes_on_trying(
    path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids = published(broker, "a", "1", "2")
    failures = iter([BrokerUnavailable("not now"), BrokerUnavailable("nor now")])
    read = broker.read

    def fails_twice(*args: object) -> object:
        if (failure := next(failures, None)) is not None:
            raise failure
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(broker, "read", fails_twice)
    with broker.subscribe("a", last_event_id=ids[0]) as subscription:
        assert subscription.take(0.01) == []  # there is time for a keep-alive
        assert texts(subscription, 1) == ["2"]
    assert caplog.text.count("reading the log failed") == 1
    eventually(lambda: broker.subscriber_count("a") == 0)


def test_only_a_subscriber_that_ends_the_idle_state_wakes_the_listener(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(broker, SQLiteBroker)
    wakes: list[None] = []
    wake = broker._listener.wake

    def count() -> None:
        wakes.append(None)
        wake()

    monkeypatch.setattr(broker._listener, "wake", count)
    with broker.subscribe("a"):
        assert len(wakes) == 1
        eventually(lambda: not broker._is_idle)
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(broker.subscribe("a"))
        assert len(wakes) == 1
    eventually(lambda: broker._is_idle)
    with broker.subscribe("a"):
        assert len(wakes) == 2
