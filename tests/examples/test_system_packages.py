"""The script that installs what the tests want from Debian, with an apt-get of our own in its PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .started import ROOT


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that is the script's whole PATH."""
    for name in ("sh", "mktemp", "rm", "tail", "echo"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    command(tmp_path, "id", "echo 0")
    command(tmp_path, "apt-get", 'echo "$@" >> "$0.calls"')
    return tmp_path


def command(machine: Path, name: str, script: str) -> None:
    (machine / name).write_text(f"#!/bin/sh\n{script}\n")
    (machine / name).chmod(0o755)


def install(machine: Path, *pairs: str) -> str:
    done = subprocess.run(
        [ROOT / "tests" / "system_packages.sh", *pairs],
        env={"PATH": str(machine), "TMPDIR": str(machine)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_nothing_is_installed_where_nothing_is_missing(machine: Path) -> None:
    assert install(machine, "sh:dash", "tail:coreutils") == ""
    assert not (machine / "apt-get.calls").exists()


def test_root_gets_the_packages_of_the_missing_commands(machine: Path) -> None:
    output = install(machine, "chromium:chromium", "sh:dash", "chromedriver:chromium-driver")
    assert output == "Installing with apt-get: chromium chromium-driver\n"
    calls = (machine / "apt-get.calls").read_text().splitlines()
    assert calls == ["-q update", "-q install -y --no-install-recommends chromium chromium-driver"]


def test_without_root_the_missing_packages_are_listed(machine: Path) -> None:
    command(machine, "id", "echo 1000")
    assert install(machine, "curl:curl") == "Missing, and not installed (that takes root and apt-get): curl\n"
    assert not (machine / "apt-get.calls").exists()


def test_without_apt_get_the_missing_packages_are_listed(machine: Path) -> None:
    (machine / "apt-get").unlink()
    assert install(machine, "curl:curl") == "Missing, and not installed (that takes root and apt-get): curl\n"


def test_an_installation_that_fails_is_shown_and_the_tests_go_on(machine: Path) -> None:
    command(machine, "apt-get", "echo no network; exit 100")
    output = install(machine, "curl:curl")
    assert output.splitlines()[1:] == ["no network", "apt-get could not install: curl"]
