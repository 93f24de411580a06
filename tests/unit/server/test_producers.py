"""How many producers may run, and what becomes of a client for whom there is none."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ssesync import EventStream, Settings, SettingsError, Writer, streams
from ssesync.server import factory, producer, producers, registry
from ssesync.server.producers import Producers

from ...cases import each_case

TIMEOUT = 90.0
VIEW = ("a", 1)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Producers:
    """A process's producers, none of which is of another test."""
    own = Producers()
    for module in (factory, producer, registry):
        monkeypatch.setattr(module, "producers", own)
    return own


class Held:
    """A producer that runs until it is let go, whatever becomes of its stream."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, writer: Writer) -> None:
        writer.write("one")
        assert self.go.wait(TIMEOUT)


def opened(function: Any, **options: Any) -> tuple[str, EventStream]:
    stream = EventStream.from_writer(function, **options)
    return stream.open({}), stream


def eventually(own: Producers, running: int) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while own.describe()["running"] != running:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def test_a_producer_counts_until_its_thread_has_ended(own: Producers, caplog: pytest.LogCaptureFixture) -> None:
    held, limited = Held(), {"settings": Settings(max_producers=1), "name": "/held"}
    status, stream = opened(held, **limited)
    assert status == "200 OK"
    stream.cancel()
    stream.close()
    snapshot = streams.snapshot()["producers"]
    assert (snapshot["running"], snapshot["limit"]) == (1, 1)
    (ended,) = snapshot["ended"]
    assert ended["name"] == "/held"
    assert 0 <= ended["seconds"] < TIMEOUT
    refused = streams.snapshot()["refused"]
    for _ in range(2):
        status, stream = opened(held, **limited)
        assert status == "503 Service Unavailable"
        assert list(stream) == [b"too many event streams\n"]
    assert streams.snapshot()["refused"] == refused + 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "max_producers=1" in record.getMessage()
    assert "the streams of 1 have ended" in record.getMessage()
    held.go.set()
    assert eventually(own, 0)
    status, stream = opened(held, **limited)
    assert status == "200 OK"
    stream.close()


def test_as_an_option_of_a_view_it_counts_the_producers_of_that_view(own: Producers) -> None:
    held, other = Held(), Held()

    def view(writer: Writer) -> None:
        held(writer)

    def another(writer: Writer) -> None:
        other(writer)

    results = [opened(each, max_producers=2) for each in (view, another, view, view, another, another)]
    assert [status[:3] for status, _ in results] == ["200", "200", "200", "503", "200", "503"]
    held.go.set()
    other.go.set()
    for _, stream in results:
        stream.close()
    assert eventually(own, 0)


def test_what_runs_no_thread_is_not_counted(own: Producers) -> None:
    few = Settings(max_producers=1)
    for source in (Writer(), Writer()):
        stream = EventStream(source, settings=few)
        assert stream.open({}) == "200 OK"
        stream.close()
    inline = EventStream(iter("ab"), settings=few, threaded=False)
    assert inline.open({}) == "200 OK"
    inline.close()
    assert own.describe()["running"] == 0


def test_without_a_thread_for_its_producer_a_client_is_refused(
    own: Producers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    closed: list[Any] = []
    stream = EventStream(iter("ab"), on_close=lambda *args: closed.append(args))
    with monkeypatch.context() as patch:
        patch.setattr("ssesync.server.producer.threading.Thread.start", start)
        assert stream.open({"HTTP_ACCEPT": "*/*"}) == "503 Service Unavailable"
    assert "no thread can be started" in caplog.text
    assert own.describe()["running"] == 0
    assert not closed
    assert stream not in streams.all()


def test_a_client_that_is_refused_for_another_reason_takes_no_place(own: Producers) -> None:
    status, _ = opened(Held(), settings=Settings(max_streams=1), key="a", max_streams_per_key=1)
    assert status == "200 OK"
    status, _ = opened(Held(), key="a", max_streams_per_key=1)
    assert status == "503 Service Unavailable"
    assert own.describe()["running"] == 1


@each_case("wrong", [0, -1, 1.5, "many", True])
def test_a_limit_that_is_none_is_an_error(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="max_producers"):
        Settings(max_producers=wrong)


@pytest.fixture
def groups(tmp_path: Path) -> tuple[Path, Path]:
    root, listing = tmp_path / "cgroup", tmp_path / "listing"
    for path, text in {
        "v/pids.max": "500\n",
        "v/w/pids.max": "max\n",
        "pids/a/pids.max": "90\n",
        "pids.max": "2000",
    }.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root, listing


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("0::/v/w\n", [500, 2000]),
        ("0::/\n", [2000]),
        ("8:pids:/a\n0::/none\n", [90, 2000]),
        ("8:cpu,pids:/a/b\n7:memory:/v\n", [90]),
        ("", []),
    ],
)
def test_the_limits_of_control_groups_are_found(groups: tuple[Path, Path], lines: str, expected: list[int]) -> None:
    root, listing = groups
    listing.write_text(lines)
    assert producers._limits_of_cgroups(root, listing) == expected


def test_without_control_groups_there_is_no_limit_of_theirs(tmp_path: Path) -> None:
    assert producers._limits_of_cgroups(tmp_path, tmp_path / "none") == []


def test_by_itself_the_limit_is_1200_or_a_part_of_what_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "_limit_of_user", lambda: None)
    for limits, expected in (([], 1200), ([100_000], 1200), ([100], 75), ([4], 8), ([1000, 100], 75)):
        monkeypatch.setattr(producers, "_limits_of_cgroups", lambda limits=limits: limits)
        place = (own := Producers()).reserve(VIEW, "x", Settings(), None)
        assert place is not None
        assert own.describe()["limit"] == expected
