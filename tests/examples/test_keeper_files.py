"""The files of ``example_projects/keeper``: their commands have options that there are; systemd accepts the units."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssesync.cli.keeper import keeper

from .started import EXAMPLES

FOLDER = EXAMPLES / "keeper"
UNITS = ("keeper.service", "app.service")


def commands_of(name: str) -> Iterator[list[str]]:
    """The arguments of each ``python -m ssesync keeper`` in a file, of whichever kind."""
    for line in (FOLDER / name).read_text("utf-8").splitlines():
        text = line.partition("#")[0] if line.startswith("#") else line
        if match := re.search(r"-m\"?,? \"?ssesync\"?,? \"?keeper\"?,? ?(.*)", text):
            yield re.sub(r"[\",\]]", " ", match[1]).split()


@pytest.mark.parametrize("name", ["keeper.service", "compose.yaml", "kubernetes.yaml"])
def test_the_commands_have_options_that_there_are(name: str) -> None:
    commands = [*commands_of(name)]
    assert commands
    for arguments in commands:
        with keeper.make_context("keeper", arguments) as context:
            assert context.params["bind"].endswith("/keeper.sock")


def test_application_and_keeper_use_the_same_socket() -> None:
    for name in ("app.service", "compose.yaml", "kubernetes.yaml"):
        other = "keeper.service" if name == "app.service" else name
        (path,) = {arguments[arguments.index("--bind") + 1] for arguments in commands_of(other)}
        assert re.search(rf"SSESYNC_KEEPER[=:, a-z]+{re.escape(path)}\b", (FOLDER / name).read_text("utf-8")), name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        text = (FOLDER / name).read_text("utf-8")
        (tmp_path / name).write_text(re.sub(r"/srv/app/venv/bin/\w+", sys.executable, text))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_containers_share_network_processes_and_folder() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    for each in ("network_mode", "pid", "volumes", "user", "environment"):
        assert services["app"][each] == services["keeper"][each]
    pod = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text("utf-8"))["spec"]
    assert pod["shareProcessNamespace"]
    (sidecar,), (app,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["volumeMounts"] == app["volumeMounts"]
