"""``python -m ssesync keeper``: its options, and the broker's URL. Running keepers: tests/live/keeper."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...cases import each_case
from .runs import RUNNER, TIMEOUT, environment, main, start


def fails(*arguments: str, **variables: str) -> str:
    """The error text of a command that must fail."""
    result = RUNNER.invoke(main, ["keeper", *arguments], env={"SSESYNC_BROKER": None, **variables})
    assert result.exit_code in (1, 2), result.output
    return result.stderr


@each_case(
    "arguments, message",
    [
        ([], "Missing option '--bind'"),
        (["--bind", "keeper.sock"], "--bind takes the absolute path of a unix socket"),
        (["--bind", "/run/a,/run/b"], "a keeper has one socket"),
        (["--bind", "/run/a", "--metrics", "9464"], "is not HOST:PORT"),
        (["--bind", "/run/a", "--metrics", "localhost:none"], "is not HOST:PORT"),
        (["--bind", "/run/a", "--spread", "-1"], "--spread"),
    ],
)
def test_options_that_can_not_work_are_named(arguments: list[str], message: str) -> None:
    assert message in fails(*arguments)


@each_case(
    "url, message",
    [
        ("", "the environment variable SSESYNC_BROKER has no broker's URL"),
        ("memory://", "the log of memory:// is within one process"),
        ("nothing://host", "SSESYNC_BROKER: no broker has the URL"),
    ],
)
def test_a_broker_that_can_not_work_is_named(url: str, message: str) -> None:
    assert message in fails("--bind", "/run/a", SSESYNC_BROKER=url)


def test_the_broker_may_be_named_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "broker"
    file.write_text("memory://?max_events=5\n")
    file.chmod(0o600)
    error = fails("--bind", "/run/a", "--broker-file", str(file))
    assert f"{file}: the log of memory:// is within one process" in error
    assert "other users" not in error
    file.chmod(0o644)
    assert f"other users can read {file}" in fails("--bind", "/run/a", "--broker-file", str(file))
    file.write_text("")
    assert "has no broker's URL" in fails("--bind", "/run/a", "--broker-file", str(file))


def test_the_password_of_a_url_is_not_shown() -> None:
    error = fails("--bind", "/run/a", SSESYNC_BROKER="nothing://user:swordfish@host")
    assert "swordfish" not in error


def test_the_status_of_a_keeper_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "does not answer" in fails("--status", "--bind", f"{tmp_path}/k.sock")


@pytest.mark.slow
def test_a_folder_that_others_can_enter_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    # A process of its own, as the command sets handlers of signals.
    broker = environment(SSESYNC_BROKER=f"sqlite:///{tmp_path}/log.db")
    with start("keeper", "--bind", f"{tmp_path}/k.sock", env=broker) as process:
        assert b"0700" in process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 1
