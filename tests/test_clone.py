"""The README's two commands in folders that are called as users' are: as ``git clone`` calls it, and worse.

The clone has an environment of its own, as ``make`` would have made it, whose packages are those that these tests run
with: nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: What is in the repository and is needed to run it.
PARTS = ("Makefile", "README.md", "pyproject.toml", "setup.cfg", "docs", "example_projects", "tests")
#: They start management commands, gunicorn and nginx. Paths are in their logs and configurations.
TESTS = (
    "tests/examples/test_django_board.py::test_without_signing_in_nothing_is_sent",
    "tests/live/streams/test_nginx.py::test_nothing_is_buffered[1.1]",
)


def copy_to(folder: Path) -> Path:
    """What ``git clone`` and ``make`` leave there, but for the download."""
    # Compiled modules are good there too, as the times of their sources stay.
    ignored = shutil.ignore_patterns("_build", "data", "instance", "db.sqlite3*", "node_modules")
    folder.mkdir(parents=True)
    for part in (*PARTS, *(each.name for each in ROOT.glob("ssesync*") if each.suffix != ".egg-info")):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy2(source, folder / part)
    environment = folder / ".venv"
    venv.create(environment, symlinks=True)
    [packages] = environment.glob("lib/python*/site-packages")
    for path in map(Path, site.getsitepackages()):
        for each in path.iterdir() if path.is_dir() else ():
            # An editable installation leads back to the folder that these tests run in.
            if "ssesync" not in each.name and not (packages / each.name).exists():
                (packages / each.name).symlink_to(each)
    (packages / "clone.pth").write_text(f"{folder}\n")
    for made in ("made", "demo.installed", "dev.installed", "node.installed"):
        (environment / made).touch()
    return folder


def make(clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the Makefile as a user would: with nothing of these tests in its environment."""
    # Not as root, whom the script that looks for missing programs would let install them.
    commands = clone.parent / "commands"
    commands.mkdir(exist_ok=True)
    (commands / "id").write_text("#!/bin/sh\necho 1000\n")
    (commands / "id").chmod(0o755)
    ours = ("PYTEST", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "MAKE", "MFLAGS", "PORT", "EVENTS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{commands}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.timeout(600)  # each command is many processes, and waits as long as any test may
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("name", [pytest.param("ssesync", marks=pytest.mark.matrix), "für uns/ss esync"])
def test_the_two_commands_of_the_readme_work_in_a_folder_with_this_name(tmp_path: Path, name: str) -> None:
    clone = copy_to(tmp_path / name)
    done = make(clone, "demo", EVENTS="2", CHAT_PACE="0.05")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line.strip()][:2] == ["Open", "here"]
    done = make(clone, "test", f"ARGS=--numprocesses 0 -p no:cacheprovider {' '.join(TESTS)}")
    assert done.returncode == 0, done.stdout + done.stderr
