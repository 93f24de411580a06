"""``python -m ssesync publish`` and ``flask sse``: the commands that publish, follow and check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from ssesync import open_broker
from ssesync_flask import SSE
from tests.unit.cli.runs import ROOT, RUNNER, main


def publish(url: str, *arguments: str, text: str = "") -> Result:
    return RUNNER.invoke(main, ["publish", *arguments], env={"SSESYNC_BROKER": url}, input=text)


def flask(url: str, *arguments: str, text: str = "") -> Result:
    app = Flask(__name__)
    app.config["SSESYNC_BROKER"] = url
    SSE(app)
    return app.test_cli_runner(**RUNNER_OPTIONS).invoke(args=["sse", *arguments], input=text)


RUNNER_OPTIONS = {"mix_stderr": False} if "mix_stderr" in vars(RUNNER) else {}


@pytest.mark.parametrize("command", [publish, lambda url, *rest, **text: flask(url, "publish", *rest, **text)])
def test_an_event_is_published_and_its_id_printed(command: object, tmp_path: Path) -> None:
    assert callable(command)
    url = f"sqlite:///{tmp_path}/log"
    with open_broker(url) as broker, broker.subscribe("a") as subscription:
        for arguments, text, data, type_ in (
            (["a", "hello\nworld", "--type", "note"], "", "hello\nworld", "note"),
            (["a"], "from a pipe\n", "from a pipe", "message"),
            (["a", '{"x": [1, 2]}', "--json"], "", '{"x":[1,2]}', "message"),
        ):
            done: Result = command(url, *arguments, text=text)
            assert done.exit_code == 0, done.stderr
            event = subscription.get(60)
            assert event is not None
            assert (event.data, event.type, event.id) == (data, type_, done.stdout.strip())
        for wrong, message in (
            (["a*", "x"], "pattern"),
            (["a", "{", "--json"], "not JSON"),
            (["a", "x", "--type", "\n"], "line"),
        ):
            done = command(url, *wrong)
            assert done.exit_code == 1
            assert message in done.stderr
        done = command(url, "a", "the end", "--final")
        assert [event.data for event in subscription] == ["the end"]


def test_a_process_without_a_shared_broker_reaches_nobody() -> None:
    done = publish("memory://", "a", "x")
    assert (done.exit_code, "within one process" in done.stderr) == (2, True)
    done = publish("", "a", "x")
    assert (done.exit_code, "has no broker's URL" in done.stderr) == (2, True)
    assert "no client gets" in flask("memory://", "publish", "a", "x").stderr
    assert flask("memory://", "tail", "a").exit_code == 1
    assert flask("memory://", "tail").exit_code == 2


def test_an_error_is_one_line_that_names_the_program(tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/log"
    for url, channel, status in ((log, "a*", 1), (f"sqlite:///{tmp_path}/missing/log", "a", 1), ("", "a", 2)):
        done = publish(url, channel, "x")
        assert (done.exit_code, done.stdout) == (status, "")
        assert done.stderr.startswith("ssesync: ")
        assert done.stderr.count("\n") == 1


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    done = flask(f"sqlite:///{tmp_path}/log", "check")
    assert (done.exit_code, done.stdout) == (0, "The configuration has no errors.\n")
    done = flask(f"sqlite:///{tmp_path}/missing/log", "check")
    assert (done.exit_code, "E003" in done.stderr) == (1, True)
    done = flask("redis://127.0.0.1:1/0", "check")
    assert (done.exit_code, "E007: the broker can't be reached" in done.stderr) == (1, True)
    done = flask("memory://", "check")
    assert (done.exit_code, "W002" in done.stderr) == (0, True)


def test_a_channel_that_is_closed_is_followed_to_its_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log"
    with open_broker(url) as broker:
        broker.publish("a", "\x9b2J\u202e")
        broker.publish("a", "the end", final=True)
    done = flask(url, "tail", "a", "--last", "2")
    assert (done.exit_code, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert (json.loads(first)["data"], json.loads(last)["data"]) == ("\x9b2J\u202e", "the end")
    assert r"\u009b2J\u202e" in first


@pytest.mark.slow
def test_channels_are_followed_until_the_process_is_interrupted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log"
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom ssesync_flask import SSE\n"
        f"app = Flask(__name__)\napp.config['SSESYNC_BROKER'] = {url!r}\nsse = SSE(app)\n"
    )
    with open_broker(url) as broker:
        first = broker.publish("room:1", "earlier", type="note")
        command = [sys.executable, "-m", "flask", "--app", "app", "sse", "tail", "--pattern", "room:*", "--last", "1"]
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
            timer = threading.Timer(90, process.kill)
            timer.start()
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"type": "note", "data": "earlier", "id": first}
            second = broker.publish("room:2", "later")
            assert json.loads(process.stdout.readline()) == {"type": "message", "data": "later", "id": second}
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 130
            timer.cancel()
