"""``manage.py sse_publish``, and what ``manage.py check`` says of the broker."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.test import override_settings

from ssesync import Event, open_broker
from ssesync_django import get_broker

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A log that others may share, as the setting."""
    url = f"sqlite:///{tmp_path}/log"
    with override_settings(SSESYNC_BROKER=url):
        yield url


def call(*args: str, stdin: Any = "", **options: Any) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        call_command("sse_publish", *args, stdout=out, stderr=err, **options)
    return out.getvalue().rstrip("\n"), err.getvalue()


def published(url: str, *args: str, **options: Any) -> Event:
    """What another process would get."""
    with open_broker(url) as broker, broker.subscribe("a") as subscription:
        printed, warnings = call("a", *args, **options)
        event = subscription.get(20)
    assert event is not None
    assert (event.id, warnings) == (printed, "")
    return event


def test_text_is_published_and_its_id_printed(url: str) -> None:
    event = published(url, "hello\nworld", "--type", "note")
    assert (event.data, event.type) == ("hello\nworld", "note")


def test_a_final_event_closes_the_channel(url: str) -> None:
    assert published(url, "over", "--final").data == "over"
    with pytest.raises(CommandError, match="closed"):
        call("a", "more")


@pytest.mark.parametrize("args", [[], ["-"]])
def test_standard_input_is_published_without_its_last_line_end(url: str, args: list[str]) -> None:
    assert published(url, *args, stdin="one\ntwo\n").data == "one\ntwo"
    assert published(url, *args, stdin="one\r\n").data == "one"


def test_json_is_checked_and_sent_compactly(url: str) -> None:
    assert published(url, '{"a": [1, 2],\n "b": "ü"}', "--json").data == '{"a":[1,2],"b":"ü"}'
    assert published(url, "null", "--json").data == "null"


@pytest.mark.parametrize(
    ("args", "stdin", "message"),
    [
        (["a*", "x"], "", "patterns"),
        (["a", "x", "--type", "b\nc"], "", "line end"),
        (["a", "{", "--json"], "", "not JSON"),
        (["a", "[NaN]", "--json"], "", "no NaN in JSON"),
        (["a", "", "--json"], "", "not JSON"),
        (["a", "\udcff"], "", "surrogate"),
        (["a"], None, "give the event's data"),
        (["a"], io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"), "not text"),
    ],
)
def test_what_can_not_be_published_is_an_error(url: str, args: list[str], stdin: Any, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call(*args, stdin=stdin)


def test_a_log_that_can_not_be_reached_is_an_error(tmp_path: Path) -> None:
    with override_settings(SSESYNC_BROKER=f"sqlite:///{tmp_path}/missing/log"), pytest.raises(CommandError):
        call("a", "x")
    with override_settings(SSESYNC_BROKER="nothing://"), pytest.raises(CommandError, match="no broker"):
        call("a", "x")


def test_publishing_to_memory_is_warned_of_as_nobody_hears_it() -> None:
    with override_settings(SSESYNC_BROKER="memory://"):
        printed, warnings = call("a", "x")
        assert printed == get_broker().position()
    assert "no client gets" in warnings


@pytest.mark.slow
def test_a_shell_gets_the_id_and_an_exit_status(tmp_path: Path) -> None:
    manage = "import sys; from django.core.management import execute_from_command_line as run; run(sys.argv)"
    settings = tmp_path / "settings_of_a_shell.py"
    settings.write_text(f'INSTALLED_APPS = ["ssesync_django"]\nSSESYNC_BROKER = "sqlite:///{tmp_path}/log"\n')
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "settings_of_a_shell",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }

    def shell(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", manage, "sse_publish", *args]
        return subprocess.run(
            command, env=environment, input="from a pipe\n", capture_output=True, text=True, timeout=55, check=False
        )

    done = shell("a")
    assert (done.returncode, done.stderr) == (0, "")
    with open_broker(f"sqlite:///{tmp_path}/log") as broker:
        assert done.stdout == broker.position() + "\n"
        epoch = broker.position().partition("-")[0]
        with broker.subscribe("a", last_event_id=f"{epoch}-0") as subscription:
            event = subscription.get(20)
    assert event is not None
    assert event.data == "from a pipe"
    failed = shell("a*", "x")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("CommandError: ")


# system checks


def checks(url: Any, *, deployment: bool = False) -> list[str]:
    with override_settings(SSESYNC_BROKER=url):
        found = run_checks(include_deployment_checks=deployment)
    return [f"{message.id} {message.msg}" for message in found if str(message.id).startswith("ssesync.")]


@pytest.mark.parametrize("url", ["memory://", "memory://?max_events=5", "redis://127.0.0.1:1/0", "unix:///nowhere"])
def test_a_good_url_passes_and_nothing_is_connected(url: str) -> None:
    assert checks(url) == []


def test_an_sqlite_log_passes_and_is_not_made(tmp_path: Path) -> None:
    assert checks(f"sqlite:///{tmp_path}/log") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://", "no broker has the URL"),
        ("memory://?max_event=5", "did you mean 'max_events'"),
        ("memory://?max_events=many", "max_events"),
        ("sqlite://", "path of a file"),
        ({}, "takes a URL, got dict"),
        (None, "takes a URL, got NoneType"),
    ],
)
def test_a_url_that_can_not_work_is_found(url: Any, message: str) -> None:
    (found,) = checks(url)
    assert found.startswith("ssesync.E002 SSESYNC_BROKER")
    assert message in found


def test_a_missing_or_protected_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = checks(f"sqlite:///{tmp_path}/missing/log")
    assert found == f"ssesync.E003 SSESYNC_BROKER: there is no directory {tmp_path}/missing"
    # Root, as whom these tests may run, may write to everything.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    (found,) = checks(f"sqlite:///{tmp_path}/log")
    assert found.startswith("ssesync.E003")
    assert "writable" in found


def test_a_relative_path_is_warned_of() -> None:
    (found,) = checks("sqlite:///log.sqlite3")
    assert found.startswith("ssesync.W001")


def test_missing_redis_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (found,) = checks("rediss://host")
    assert found == "ssesync.E004 SSESYNC_BROKER is rediss://, which needs redis-py"


def test_memory_is_warned_of_where_the_project_is_deployed() -> None:
    (found,) = checks("memory://", deployment=True)
    assert found.startswith("ssesync.W002")
    found_unset = [message for message in run_checks(include_deployment_checks=True) if message.id == "ssesync.I001"]
    assert len(found_unset) == 1
    assert checks("redis://host", deployment=True) == []
